package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/flowviz/flowagent/test/bench/figures"
	"github.com/flowviz/flowagent/test/bench/process"
)

const (
	// startLimit is far above what a contestant needs for its checks to pass twice, a second on a busy machine.
	startLimit = 20 * time.Second
	// loadSlack is what wrk may take to begin and to end, beyond the load's own duration.
	loadSlack = 10 * time.Second
	// startPoll is how often a contestant that starts is looked after.
	startPoll = 10 * time.Millisecond
)

// crowds are on how many connections the contestants are asked: one is a load balancer, fifty are more than any node has.
var crowds = []int{1, 50}

//go:embed report.lua
var reportScript []byte

// bench makes the load.
type bench struct {
	wrk      string
	duration time.Duration
}

// load is what one contestant did on one number of connections.
type load struct {
	rate     float64 // requests a second
	p50, p99 time.Duration
}

// round is every contestant's load, by its name and the number of connections.
type round map[string]map[int]load

// round loads each contestant, one at a time and in a process that is new: an unlucky placement in memory is a round's.
func (b bench) round(ctx context.Context, number int) (round, error) {
	took := round{}
	for _, contestant := range figures.Order(contestants, number) {
		loads, err := b.contest(ctx, contestant)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", contestant, err)
		}
		took[contestant] = loads
	}
	return took, nil
}

func (b bench) contest(ctx context.Context, contestant string) (map[int]load, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := process.Start(process.Command{Arguments: []string{self, "-serve", contestant}})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	url, err := address(ctx, p)
	if err != nil {
		return nil, p.Blame(err)
	}
	loads := map[int]load{}
	for _, connections := range crowds {
		if loads[connections], err = b.load(ctx, url, connections); err != nil {
			return nil, err
		}
	}
	return loads, nil
}

// address waits until a contestant has said where it listens.
func address(ctx context.Context, p *process.Process) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("it doesn't listen after %v", startLimit))
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		if text, err := p.Output(); err != nil || strings.HasPrefix(text, "http://127.0.0.1:") {
			return text, err
		}
		select {
		case <-tick.C:
		case <-p.Ended():
			return "", p.Early()
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// load asks url on that many connections, from a process of wrk's with one thread.
func (b bench) load(ctx context.Context, url string, connections int) (load, error) {
	ctx, cancel := context.WithTimeout(ctx, b.duration+loadSlack)
	defer cancel()
	dir, err := os.MkdirTemp("", "bench-wrk")
	if err != nil {
		return load{}, err
	}
	defer os.RemoveAll(dir)
	script := filepath.Join(dir, "report.lua")
	if err := os.WriteFile(script, reportScript, 0o600); err != nil {
		return load{}, err
	}
	output, err := exec.CommandContext(ctx, b.wrk, "--threads", "1", "--connections", strconv.Itoa(connections),
		"--duration", b.duration.String(), "--timeout", b.duration.String(), "--script", script, url).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w: %s", err, bytes.TrimSpace(output))
	}
	return parse(output)
}

// parse reads the last line that wrk printed, which is report.lua's.
func parse(output []byte) (load, error) {
	lines := bytes.Split(bytes.TrimSpace(output), []byte("\n"))
	var said struct{ Requests, Micros, Failed, P50, P99 int64 }
	if err := json.Unmarshal(lines[len(lines)-1], &said); err != nil {
		return load{}, fmt.Errorf("wrk printed no report: %w: %s", err, output)
	}
	if said.Failed > 0 || said.Requests == 0 || said.Micros == 0 {
		return load{}, fmt.Errorf("%d of %d requests failed", said.Failed, said.Requests)
	}
	return load{
		rate: float64(said.Requests) / (time.Duration(said.Micros) * time.Microsecond).Seconds(),
		p50:  time.Duration(said.P50) * time.Microsecond,
		p99:  time.Duration(said.P99) * time.Microsecond,
	}, nil
}
