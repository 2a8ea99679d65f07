package probe

import (
	"context"
	"errors"
	"sync/atomic"
)

// stuck runs calls into the kernel that can't be cancelled, such as those on a network file system whose server is
// gone. At most one of its calls is under way, however often and however long it hangs.
type stuck struct{ busy atomic.Bool }

var errStuck = errors.New("the file system has not answered an earlier call yet")

// call returns what f returns, or the reason when ctx ends first; what f writes to must not be read then. While an
// earlier f still hangs it returns errStuck at once.
func (s *stuck) call(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.busy.CompareAndSwap(false, true) {
		return errStuck
	}
	done := make(chan error, 1)
	go func() {
		err := f()
		s.busy.Store(false)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
