package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/agent/report"
)

// watchInterval is how often a watched status is asked for: often enough for a person.
const watchInterval = time.Second

// home moves a terminal's cursor to its upper left corner; toLineEnd and toEnd clear what an earlier, longer picture left
// there (ECMA-48: CUP, EL, ED). Unlike clearing first, that doesn't flicker.
const (
	home      = "\x1b[H"
	toLineEnd = "\x1b[K"
	toEnd     = "\x1b[J"
)

// watcher shows a node's status again and again.
type watcher struct {
	out      io.Writer
	client   *control.Client
	json     bool
	terminal bool
	last     string // what was printed last, when not on a terminal
}

func newWatcher(out io.Writer, client *control.Client, asJSON bool) *watcher {
	_, terminal := terminalWidth(out)
	return &watcher{out: out, client: client, json: asJSON, terminal: terminal && !asJSON}
}

// run shows the status until ctx ends, which is how a watch is meant to end. An agent that is being restarted is waited
// for; one that can't be asked at all ends the watch.
func (w *watcher) run(ctx context.Context) error {
	if w.terminal {
		if _, err := io.WriteString(w.out, home+toEnd); err != nil {
			return err
		}
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for seen := false; ; seen = true {
		status, err := w.client.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			err = w.show(report.Headline(status), &status)
		case seen && errors.Is(err, control.ErrUnreachable):
			err = w.show(err.Error(), nil)
		default:
			return agentError(err)
		}
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// show prints a status, or the line that stands for one when there is none.
func (w *watcher) show(line string, status *report.Status) error {
	switch {
	case w.terminal:
		picture := bytes.NewBufferString(line + "\n")
		if status != nil {
			picture.Reset()
			if err := report.Write(picture, *status); err != nil {
				return err
			}
		}
		text := bytes.ReplaceAll(picture.Bytes(), []byte("\n"), []byte(toLineEnd+"\n"))
		_, err := fmt.Fprintf(w.out, "%s%s%s", home, text, toEnd)
		return err
	case line == w.last:
		return nil
	}
	w.last = line
	if !w.json {
		_, err := fmt.Fprintf(w.out, "%s  %s\n", time.Now().Format(time.TimeOnly), line)
		return err
	}
	if status == nil {
		status = &report.Status{State: "unreachable", Detail: line, Now: time.Now()}
	}
	return json.NewEncoder(w.out).Encode(status)
}
