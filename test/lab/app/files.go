package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

func cat(_ context.Context, args []string, stdout io.Writer) (int, error) {
	if len(args) == 0 {
		return exitUsage, fmt.Errorf("no file: %w", errUsage)
	}
	for _, name := range args {
		content, err := os.ReadFile(name)
		if err != nil {
			return exitFailed, err
		}
		if _, err := stdout.Write(content); err != nil {
			return exitFailed, err
		}
	}
	return exitDone, nil
}

func stat(_ context.Context, args []string, stdout io.Writer) (int, error) {
	if len(args) == 0 {
		return exitUsage, fmt.Errorf("no file: %w", errUsage)
	}
	for _, name := range args {
		var s unix.Stat_t
		if err := unix.Stat(name, &s); err != nil {
			return exitFailed, fmt.Errorf("stat %s: %w", name, err)
		}
		fmt.Fprintf(stdout, "%04o %d:%d %s\n", s.Mode&0o7777, s.Uid, s.Gid, name)
	}
	return exitDone, nil
}

func write(_ context.Context, args []string, _ io.Writer) (int, error) {
	if len(args) != 2 {
		return exitUsage, fmt.Errorf("want FILE TEXT: %w", errUsage)
	}
	if err := os.WriteFile(args[0], []byte(args[1]), 0o644); err != nil {
		return exitFailed, err
	}
	return exitDone, nil
}

func id(_ context.Context, args []string, stdout io.Writer) (int, error) {
	if len(args) != 0 {
		return exitUsage, fmt.Errorf("id takes no argument: %w", errUsage)
	}
	fmt.Fprintf(stdout, "%d:%d\n", os.Getuid(), os.Getgid())
	return exitDone, nil
}
