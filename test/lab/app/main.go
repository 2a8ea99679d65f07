// Command app is the one program of the container images that tests and benches run: small, static, and able to behave
// well or badly on demand. What enters are the arguments below; what leaves is what it prints and its exit code. It
// keeps no state and never calls out, except for healthcheck.
//
//	app serve [-addr :8080] [-ready-after 1s] [-unhealthy-file F]
//	    HTTP: /health answers 503 until ready-after has passed and while F exists, then 200; /env/NAME a variable;
//	    /file/PATH a file; /slow/D answers after D, and sends nothing before; / its host name. Ends with 0 on SIGTERM
//	    or SIGINT, at once.
//	app exit CODE [-after 1s] [-print TEXT]      prints TEXT and ends with CODE
//	app trap [-linger 1s]                        prints "ready", then the name of each SIGHUP, SIGUSR1, SIGTERM or
//	                                             SIGINT; the last two end it with 0 after linger
//	app sleep [D]                                ignores SIGTERM and prints "ready"; ends with 0 after D, or in 292
//	                                             years
//	app cat FILE...                              prints files
//	app stat FILE...                             prints "MODE UID:GID PATH" of each, the mode in octal
//	app write FILE TEXT                          writes a file
//	app id                                       prints "UID:GID"
//	app healthcheck URL                          ends with 0 when URL answers 200
//
// Wrong arguments end it with 2.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// errUsage is wrapped by errors about the command line.
var errUsage = errors.New("wrong arguments")

func main() {
	code, err := run(context.Background(), os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
	}
	os.Exit(code)
}

// run executes one command line and returns the exit code, with an error where there is something to say.
func run(ctx context.Context, args []string, stdout io.Writer) (int, error) {
	if len(args) == 0 {
		return exitUsage, fmt.Errorf("no command: %w", errUsage)
	}
	commands := map[string]func(context.Context, []string, io.Writer) (int, error){
		"serve": serve, "exit": exit, "trap": trap, "sleep": sleep, "cat": cat, "stat": stat, "write": write, "id": id,
		"healthcheck": healthcheck,
	}
	command, ok := commands[args[0]]
	if !ok {
		return exitUsage, fmt.Errorf("command %q: %w", args[0], errUsage)
	}
	code, err := command(ctx, args[1:], stdout)
	if errors.Is(err, errUsage) {
		return exitUsage, fmt.Errorf("%s: %w", args[0], err)
	}
	return code, err
}

func exit(ctx context.Context, args []string, stdout io.Writer) (int, error) {
	if len(args) == 0 {
		return exitUsage, fmt.Errorf("no code: %w", errUsage)
	}
	code, err := strconv.ParseUint(args[0], 10, 8)
	if err != nil {
		return exitUsage, fmt.Errorf("code %q: %w", args[0], errUsage)
	}
	flags := flag.NewFlagSet("exit", flag.ContinueOnError)
	after := flags.Duration("after", 0, "how long to wait first")
	text := flags.String("print", "", "what to print first")
	if err := parse(flags, args[1:], 0); err != nil {
		return exitUsage, err
	}
	if *text != "" {
		fmt.Fprintln(stdout, *text)
	}
	wait(ctx, *after)
	return int(code), nil
}

func trap(ctx context.Context, args []string, stdout io.Writer) (int, error) {
	flags := flag.NewFlagSet("trap", flag.ContinueOnError)
	linger := flags.Duration("linger", 0, "how long to go on after SIGTERM or SIGINT")
	if err := parse(flags, args, 0); err != nil {
		return exitUsage, err
	}
	signals := make(chan os.Signal, 16) // more than a test sends before it looks
	signal.Notify(signals, unix.SIGHUP, unix.SIGUSR1, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(signals)
	fmt.Fprintln(stdout, "ready")
	for {
		select {
		case <-ctx.Done():
			return exitFailed, ctx.Err()
		case s := <-signals:
			number := s.(syscall.Signal)
			fmt.Fprintln(stdout, unix.SignalName(number))
			if number == unix.SIGTERM || number == unix.SIGINT {
				wait(ctx, *linger)
				return exitDone, nil
			}
		}
	}
}

func sleep(ctx context.Context, args []string, stdout io.Writer) (int, error) {
	if len(args) > 1 {
		return exitUsage, fmt.Errorf("more than one duration: %w", errUsage)
	}
	d := time.Duration(math.MaxInt64) // 292 years
	if len(args) == 1 {
		var err error
		if d, err = time.ParseDuration(args[0]); err != nil {
			return exitUsage, fmt.Errorf("duration %q: %w", args[0], errUsage)
		}
	}
	signal.Ignore(unix.SIGTERM)
	fmt.Fprintln(stdout, "ready")
	wait(ctx, d)
	return exitDone, nil
}

// wait returns after d, or when ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// parse reads flags and insists on the number of arguments after them.
func parse(flags *flag.FlagSet, args []string, want int) error {
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() != want {
		return fmt.Errorf("%d arguments after the flags, want %d: %w", flags.NArg(), want, errUsage)
	}
	return nil
}
