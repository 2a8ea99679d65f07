// Package ami finds an image.
package ami
