// Package image brings container images onto the node through the Docker Engine.
//
// What enters are image references, the configuration's registries and pull settings, and a directory of archives; what
// leaves are images in the engine's store, each with the immutable reference to run. Registry credentials live in
// memory only: this package never reads or writes ~/.docker, and no credential appears in an error, an event or a log.
// It never forces the removal of an image and never removes one that a container uses.
package image
