package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"time"
)

// startTimeout bounds the start of any stand-in. They need 0.1 to 2 seconds; the rest is for a loaded CI machine.
const startTimeout = 60 * time.Second

// MotoServer is a running moto_server: AWS in one process, all state in memory.
type MotoServer struct {
	*Process
	URL string // such as http://127.0.0.1:41234; every AWS service answers there
}

// StartMoto starts an empty moto_server on a free loopback port. ctx bounds the start only.
func StartMoto(ctx context.Context) (*MotoServer, error) {
	path, err := systemProgram("moto_server")
	if err != nil {
		return nil, err
	}
	p, err := start("moto_server", exec.Command(path, "-H", "127.0.0.1", "-p", "0"))
	if err != nil {
		return nil, err
	}
	url, err := p.awaitHTTP(ctx, "/moto-api/data.json", http.StatusOK)
	if err != nil {
		p.Stop()
		return nil, err
	}
	return &MotoServer{p, url}, nil
}

// awaitHTTP waits until the program's port answers path with the given status, and returns the URL of the server.
func (p *Process) awaitHTTP(ctx context.Context, path string, want int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	port, err := p.port(ctx)
	if err != nil {
		return "", err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	return url, p.await(ctx, func(ctx context.Context) error { return answers(ctx, http.DefaultClient, url+path, want) })
}

func answers(ctx context.Context, client *http.Client, url string, want int) error {
	status, err := statusOf(ctx, client, url)
	if err == nil && status != want {
		err = fmt.Errorf("GET %s: got status %d, want %d", url, status, want)
	}
	return err
}

// statusOf is the status of one answer; an error says that there was none.
func statusOf(ctx context.Context, client *http.Client, url string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode, nil
}
