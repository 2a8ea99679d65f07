package secret

import "errors"

// ErrNotTmpfs is wrapped when the store's directory is not, and can't be made, a mount that lives in memory only.
var ErrNotTmpfs = errors.New("not a tmpfs of its own")

// ErrMountOptions is wrapped when a tmpfs that someone else mounted at the store's directory lacks a protection or
// has an option the store can't work with.
var ErrMountOptions = errors.New("unsuitable mount options")
