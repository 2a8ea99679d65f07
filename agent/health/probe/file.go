package probe

import (
	"context"
	"os"
	"time"
)

// File passes when a regular file exists and is young and large enough, as the stamp or result of a backup is.
type File struct {
	// Path of the file; a symbolic link is followed.
	Path string
	// WarnAge and FailAge are the age, since its content was last written, from which it warns and fails; 0 for never.
	WarnAge, FailAge time.Duration
	// MinSize is the least size in bytes; 0 for any.
	MinSize int64

	pending stuck // not to be copied
}

// fileAhead is how far in the future a file's time may be before it is a warning: coarse clocks and other machines'
// clocks are off by less.
const fileAhead = time.Minute

// Probe's value is the age in seconds. See [Disk.Probe] for a file system that doesn't answer.
func (p *File) Probe(ctx context.Context) Result {
	var info os.FileInfo
	err := p.pending.call(ctx, func() (err error) { info, err = os.Stat(p.Path); return err })
	if os.IsNotExist(err) {
		return failed("%s does not exist", p.Path)
	}
	if err != nil {
		return failed("look at %s: %v", p.Path, plain(ctx, err))
	}
	return p.judge(info, time.Now())
}

func (p *File) judge(info os.FileInfo, now time.Time) Result {
	if !info.Mode().IsRegular() {
		return failed("%s is not a regular file", p.Path)
	}
	age := now.Sub(info.ModTime())
	result := passed("%s is %s old", p.Path, ageText(age)).measured(age.Seconds(), "s")
	switch {
	case info.Size() < p.MinSize:
		result.Status = Fail
		result.Output += ", but has only " + bytesText(uint64(info.Size())) + " of at least " + bytesText(uint64(p.MinSize))
	case p.FailAge > 0 && age >= p.FailAge:
		result.Status = Fail
		result.Output += ", too old by " + ageText(age-p.FailAge)
	case age < -fileAhead:
		result.Status = Warn
		result.Output = p.Path + " is from the future, by " + ageText(-age) + ": one clock is wrong"
	case p.WarnAge > 0 && age >= p.WarnAge:
		result.Status = Warn
		result.Output += ", expected to be younger than " + ageText(p.WarnAge)
	}
	return result
}

// ageText is exact to the second below a day, and counts days from two on.
func ageText(d time.Duration) string {
	if d >= 2*day {
		return days(d)
	}
	return d.Round(time.Second).String()
}
