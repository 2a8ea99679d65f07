package main

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// kernelTime is what the kernel writes before each of its lines: the seconds since it began.
var kernelTime = regexp.MustCompile(`^\[ *(\d+\.\d{6})\] `)

// console takes what a machine says on its serial port into a file, and learns from it when the kernel began.
type console struct {
	file *os.File
	now  func() time.Time

	mu    sync.Mutex
	line  []byte
	began time.Time
}

// Write implements [io.Writer] for QEMU's output, as it comes.
func (c *console) Write(p []byte) (int, error) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = append(c.line, p...)
	for {
		i := bytes.IndexByte(c.line, '\n')
		if i < 0 {
			break
		}
		c.read(c.line[:i], now)
		c.line = c.line[i+1:]
	}
	return c.file.Write(p)
}

// read takes a line's arrival, less the kernel's own time in it, for the kernel's start. A line can be late and never early, so
// the earliest result counts; the first line of another boot begins anew.
func (c *console) read(line []byte, now time.Time) {
	found := kernelTime.FindSubmatch(line)
	if found == nil {
		return
	}
	if bytes.Contains(line, []byte("Linux version ")) {
		c.began = time.Time{}
	}
	seconds, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return
	}
	began := now.Add(-time.Duration(seconds * float64(time.Second)))
	if c.began.IsZero() || began.Before(c.began) {
		c.began = began
	}
}

// kernelBegan is when the present boot's kernel started; zero before it did.
func (c *console) kernelBegan() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.began
}
