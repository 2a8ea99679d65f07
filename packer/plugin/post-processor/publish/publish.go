// Package publish is the post-processor that publishes an image.
package publish
