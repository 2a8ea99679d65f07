package image

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// Ten pictures a second look smooth; the engine sends many more messages.
	redrawEvery = 100 * time.Millisecond
	// Width of the bar itself; the name gets what is left of the line.
	barWidth = 20
	// Columns that the name always gets: enough for the end of a repository's name and a tag.
	leastName = 16
	// A line narrower than this can't hold a name, a bar and a number; it wraps then.
	leastWidth = 60
)

// Bars is the [Progress] of a terminal: one line for each image under way, redrawn in place, below the lines of those
// that are done. Nothing else should write to the terminal meanwhile; what wants to, such as a log, writes to the Bars.
type Bars struct {
	out   io.Writer
	width int

	mu     sync.Mutex
	active []*bar
	drawn  int // lines below which the cursor stands
	last   time.Time
}

// NewBars draws on a terminal that is width columns wide.
func NewBars(w io.Writer, width int) *Bars {
	return &Bars{out: w, width: max(width, leastWidth)}
}

// Write puts whole lines above the bars.
func (b *Bars) Write(lines []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.active) == 0 && b.drawn == 0 {
		return b.out.Write(lines)
	}
	b.draw(strings.TrimSuffix(string(lines), "\n"))
	return len(lines), nil
}

type bar struct {
	name  string
	state State
	note  string // instead of the bar, while waiting for another try
}

func (b *Bars) Started(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = append(b.active, &bar{name: name, state: State{Doing: "waiting"}})
	b.draw("")
}

func (b *Bars) Moved(name string, s State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range b.active {
		if line.name == name {
			line.state, line.note = s, ""
		}
	}
	if time.Since(b.last) >= redrawEvery {
		b.draw("")
	}
}

func (b *Bars) Waiting(name, why string, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range b.active {
		if line.name == name {
			line.note = tidy(fmt.Sprintf("again in %s: %s", wait.Round(100*time.Millisecond), why))
		}
	}
	b.draw("")
}

func (b *Bars) Finished(name string, result Image, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active = slices.DeleteFunc(b.active, func(line *bar) bool { return line.name == name })
	if err != nil {
		// The whole error is the caller's to print, once and untruncated.
		b.draw(b.fit("✗ "+name, "failed"))
		return
	}
	b.draw(b.fit("✓ "+name, fmt.Sprintf("%s in %s", byteCount(result.Bytes), result.Elapsed.Round(10*time.Millisecond))))
}

// draw replaces the lines of the images under way, after one that stays, if any. Escape codes: ECMA-48 CUU (cursor up)
// and ED (erase to the end of the screen).
func (b *Bars) draw(stays string) {
	var text strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.drawn)
	}
	text.WriteString("\r\x1b[J")
	if stays != "" {
		text.WriteString(stays + "\n")
	}
	for _, line := range b.active {
		right := line.note
		if right == "" {
			right = picture(line.state)
		}
		text.WriteString(b.fit("  "+line.name, right) + "\n")
	}
	b.drawn, b.last = len(b.active), time.Now()
	_, _ = io.WriteString(b.out, text.String()) // a terminal that is gone is no reason to stop pulling
}

// fit sets one text left and one right on a line that doesn't wrap. The name gives way, its end is what differs.
func (b *Bars) fit(left, right string) string {
	room := b.width - 1 // a full last column makes some terminals wrap
	right = firstRunes(right, room-leastName)
	space := room - utf8.RuneCountInString(right) - 1
	if n := utf8.RuneCountInString(left); n > space {
		mark, name := []rune(left)[:2], []rune(left)[2:]
		left = string(mark) + "…" + string(name[len(name)-(space-3):])
	}
	return left + strings.Repeat(" ", space-utf8.RuneCountInString(left)+1) + right
}

func firstRunes(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}

// picture is "downloading ████████░░░░ 12.3/45.6 MB".
func picture(s State) string {
	if s.Total <= 0 {
		return s.Doing
	}
	filled := int(min(s.Current, s.Total) * barWidth / s.Total)
	return fmt.Sprintf("%-11s %s%s %9s", s.Doing,
		strings.Repeat("█", filled), strings.Repeat("░", barWidth-filled), byteCount(s.Total))
}

// byteCount writes bytes as registries and disks count them, in powers of 1000.
func byteCount(n int64) string {
	value, unit := float64(n), "B"
	for _, next := range []string{"kB", "MB", "GB", "TB"} {
		if value < 999.95 {
			break
		}
		value, unit = value/1000, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}
