package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// proof is one run.
type proof struct {
	options
	root string // the project's tree
	work string // where this run's files go
	log  io.Writer

	started        time.Time
	passed, failed int

	accelerator accelerator
	base        string // the base disk
	kernel      string // the base disk's kernel
	images      string // the application's images, as an archive
}

// begin makes room for this run's files, in place of the last one's.
func (p *proof) begin() error {
	p.started = time.Now()
	if filepath.Dir(p.golden) == filepath.Join(p.work, "golden") {
		return fmt.Errorf("-golden %s would be deleted by this run: move it elsewhere", p.golden)
	}
	if err := os.RemoveAll(p.work); err != nil {
		return err
	}
	return os.MkdirAll(p.work, 0o755)
}

// close deletes the disks, which are large; logs stay.
func (p *proof) close() {
	if p.keep {
		fmt.Fprintf(p.log, "      disks are in %s\n", p.work)
		return
	}
	for _, pattern := range []string{"golden", "registry", "*/disk.qcow2", "*/disk.raw", "*/seed", "*/seed.iso", "*/login", "*/credentials-*", "builder_key*"} {
		found, err := filepath.Glob(filepath.Join(p.work, pattern))
		for _, path := range found {
			err = errors.Join(err, os.RemoveAll(path))
		}
		if err != nil {
			fmt.Fprintf(p.log, "      not deleted: %v\n", err)
		}
	}
}

// show does one thing and prints what came of it. what reads as a sentence that holds when do returns nil; detail is added to it.
func (p *proof) show(ctx context.Context, what string, do func(context.Context) (detail string, err error)) bool {
	if ctx.Err() != nil {
		return false // the verdict says why
	}
	begin := time.Now()
	detail, err := do(ctx)
	took := time.Since(begin).Seconds()
	if detail != "" {
		what += ": " + detail
	}
	if err == nil {
		p.passed++
		fmt.Fprintf(p.log, "ok   %6.1f s  %s\n", took, what)
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	p.failed++
	fmt.Fprintf(p.log, "FAIL %6.1f s  %s\n               %s\n", took, what, strings.ReplaceAll(err.Error(), "\n", "\n               "))
	return false
}

// verdict prints how it went. cause is why the run was ended early, nil where it wasn't.
func (p *proof) verdict(cause error) error {
	if cause != nil {
		return fmt.Errorf("ended before the proof was over: %w", cause)
	}
	fmt.Fprintf(p.log, "\n%d passed, %d failed\n", p.passed, p.failed)
	if p.failed > 0 {
		return fmt.Errorf("the image is not proven: logs and consoles are in %s", p.work)
	}
	fmt.Fprintf(os.Stderr, "image: proven in %s\n", time.Since(p.started).Round(time.Second))
	return nil
}

// within bounds a wait; what runs out of it says what it waited for.
func within(ctx context.Context, limit time.Duration, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s took longer than %s", what, limit))
}

// poll asks until done is true or ctx ends. The last error of done says why it isn't.
func poll(ctx context.Context, every time.Duration, done func(context.Context) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		err := done(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}
