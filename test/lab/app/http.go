package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// healthTimeout bounds a question and the wait for its answer. Both take well under a millisecond; the rest is for a loaded CI
// machine, on which a healthy service must not turn unhealthy, nor an idle connection be closed, because a test stalled.
const healthTimeout = 30 * time.Second

func serve(ctx context.Context, args []string, stdout io.Writer) (int, error) {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	address := flags.String("addr", ":8080", "address to listen on")
	readyAfter := flags.Duration("ready-after", 0, "how long /health answers 503 after the start")
	unhealthyFile := flags.String("unhealthy-file", "", "while this file exists, /health answers 503")
	if err := parse(flags, args, 0); err != nil {
		return exitUsage, err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return exitFailed, err
	}
	server := &http.Server{Handler: handler(time.Now().Add(*readyAfter), *unhealthyFile), ReadHeaderTimeout: healthTimeout}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Fprintf(stdout, "listening on %s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return exitFailed, err
	}
	return exitDone, nil
}

func handler(readyAt time.Time, unhealthyFile string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if time.Now().Before(readyAt) {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		if _, err := os.Stat(unhealthyFile); unhealthyFile != "" && err == nil {
			http.Error(w, "unhealthy", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "healthy")
	})
	mux.HandleFunc("GET /env/{name}", func(w http.ResponseWriter, r *http.Request) {
		value, ok := os.LookupEnv(r.PathValue("name"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, value)
	})
	mux.HandleFunc("GET /file/{path...}", func(w http.ResponseWriter, r *http.Request) {
		content, err := os.ReadFile("/" + r.PathValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(content)
	})
	mux.HandleFunc("GET /slow/{delay}", func(w http.ResponseWriter, r *http.Request) {
		delay, err := time.ParseDuration(r.PathValue("delay"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		wait(r.Context(), delay)
		fmt.Fprintln(w, "done")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		name, err := os.Hostname()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, name)
	})
	return mux
}

func healthcheck(ctx context.Context, args []string, _ io.Writer) (int, error) {
	if len(args) != 1 {
		return exitUsage, fmt.Errorf("want a URL: %w", errUsage)
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return exitUsage, fmt.Errorf("%w: %w", errUsage, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return exitFailed, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return exitFailed, fmt.Errorf("GET %s: got status %d, want 200", args[0], response.StatusCode)
	}
	return exitDone, nil
}
