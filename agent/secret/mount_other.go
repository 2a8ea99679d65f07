//go:build !linux

package secret

import (
	"errors"
	"fmt"
	"os"
)

// openMount exists so that the commands which need no store build on a developer's machine.
func openMount(string) (*os.Root, bool, error) {
	return nil, false, fmt.Errorf("%w: secrets are served on Linux only: %w", ErrNotTmpfs, errors.ErrUnsupported)
}
