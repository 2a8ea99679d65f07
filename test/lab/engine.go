package lab

import (
	"context"
	"fmt"
	"os"

	"github.com/moby/moby/client"
)

// engineClient connects to the engine at address and checks that it answers.
func engineClient(ctx context.Context, address string) (*client.Client, error) {
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		return nil, fmt.Errorf("engine %s: %w", address, err)
	}
	if _, err := engine.Ping(ctx, client.PingOptions{}); err != nil {
		_ = engine.Close()
		return nil, fmt.Errorf("ask engine %s: %w", address, err)
	}
	return engine, nil
}

func engineAddress() (string, error) {
	address := os.Getenv(EngineVariable)
	if address == "" {
		return "", missing("a Docker Engine for tests",
			"run the tests in `lab run`, or set "+EngineVariable+"=unix:///var/run/docker.sock to use this machine's")
	}
	return address, nil
}
