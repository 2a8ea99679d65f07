package workload

import (
	"bufio"
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

const (
	// shownLogLines of a container are in an error.
	shownLogLines = 10
	// logTimeout bounds reading them: an error must not wait for a slow logging driver.
	logTimeout = 5 * time.Second
)

// lastLines are the last lines that a container wrote, scrubbed and cut to a length that can be shown. They go into an
// error, so what stands in their way is told in a line of its own instead of another error.
func (r *Runner) lastLines(ctx context.Context, c ContainerState) []string {
	// The context may have ended with the wait that failed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTimeout)
	defer cancel()
	logs, err := r.engine.ContainerLogs(ctx, c.ID, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(shownLogLines),
	})
	if err != nil {
		return []string{"(its log can't be read: " + shorten(printable(err.Error())) + ")"}
	}
	defer logs.Close()
	var text tail
	if c.tty {
		_, err = io.Copy(&text, bufio.NewReader(logs))
	} else {
		_, err = stdcopy.StdCopy(&text, &text, logs)
	}
	lines := text.lines(shownLogLines)
	if err != nil && len(lines) == 0 {
		return []string{"(its log can't be read: " + shorten(printable(err.Error())) + ")"}
	}
	if len(lines) == 0 {
		return nil
	}
	// As one text, because a secret may have several lines.
	s := r.scrubber()
	return s.lines(strings.Split(s.scrub(strings.Join(lines, "\n")), "\n"))
}
