package config

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written as Go writes it: 500ms, 30s, 5m, 1h30m.
type Duration time.Duration

// UnmarshalText refuses a bare number, whose unit nobody could tell, and anything negative.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	v, err := time.ParseDuration(s)
	if err != nil || s == "0" {
		if _, numErr := strconv.ParseFloat(s, 64); numErr == nil {
			return fmt.Errorf("duration %q has no unit: write %ss, %sm or %sh", s, s, s, s)
		}
		return fmt.Errorf("%q is not a duration: write it like 30s, 5m or 1h30m", s)
	}
	if v < 0 {
		return fmt.Errorf("duration %q is negative", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the inverse of UnmarshalText, without trailing zero units: 5m, not 5m0s.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ByteSize is a number of bytes, written with a unit: 500MB (powers of 1000) or 10GiB (powers of 1024).
type ByteSize int64

var byteUnits = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// UnmarshalText refuses a number without a unit, except 0.
func (b *ByteSize) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "0" {
		*b = 0
		return nil
	}
	for _, unit := range byteUnits {
		number, found := strings.CutSuffix(s, unit.suffix)
		if !found {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || v < 0 || math.IsNaN(v) || v*unit.factor >= math.MaxInt64 {
			break
		}
		*b = ByteSize(v * unit.factor)
		return nil
	}
	return fmt.Errorf("%q is not a size: write it like 500MB or 10GiB", s)
}

// MarshalText is the inverse of UnmarshalText, in the largest unit that leaves a whole number.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

func (b ByteSize) String() string {
	if b == 0 {
		return "0"
	}
	best, unitName := int64(b), "B"
	for _, unit := range byteUnits {
		f := int64(unit.factor)
		if int64(b)%f == 0 && int64(b)/f < best {
			best, unitName = int64(b)/f, unit.suffix
		}
	}
	return strconv.FormatInt(best, 10) + unitName
}

// Percent is a share, written like 5% or 2.5%. The zero value is none.
type Percent float64

// UnmarshalText takes shares above 0% and up to 100%.
func (p *Percent) UnmarshalText(text []byte) error {
	number, found := strings.CutSuffix(string(text), "%")
	v, err := strconv.ParseFloat(number, 64)
	if !found || err != nil || !(v > 0 && v <= 100) {
		return fmt.Errorf("%q is not a share: write it like 5%% or 2.5%%", text)
	}
	*p = Percent(v)
	return nil
}

// MarshalText is the inverse of UnmarshalText; the zero value has no text.
func (p Percent) MarshalText() ([]byte, error) {
	if p == 0 {
		return nil, nil
	}
	return []byte(strconv.FormatFloat(float64(p), 'f', -1, 64) + "%"), nil
}

// Room is an amount of a disk: a size or a share of the whole. The zero value is none.
type Room struct {
	// Size is 0 where Share says how much, and the other way round.
	Size ByteSize `yaml:"-"`
	// Share of the whole disk.
	Share Percent `yaml:"-"`
}

// UnmarshalText takes 10GiB as well as 10%.
func (r *Room) UnmarshalText(text []byte) error {
	var read Room
	err := read.Share.UnmarshalText(text)
	if !strings.HasSuffix(string(text), "%") {
		err = read.Size.UnmarshalText(text)
	}
	if err != nil || read == (Room{}) {
		return fmt.Errorf("%q is neither a size above 0 nor a share: write it like 10GiB or 10%%", text)
	}
	*r = read
	return nil
}

// MarshalText is the inverse of UnmarshalText; the zero value has no text.
func (r Room) MarshalText() ([]byte, error) {
	if r.Size != 0 {
		return r.Size.MarshalText()
	}
	return r.Share.MarshalText()
}

// ListenAddress is host:port to listen on; an empty host means every interface.
type ListenAddress string

// UnmarshalText checks that there is a port between 0 and 65535; 0 lets the kernel choose.
func (a *ListenAddress) UnmarshalText(text []byte) error {
	s := string(text)
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on: write it like :9180 or 127.0.0.1:9180", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port between 0 and 65535", s)
	}
	*a = ListenAddress(s)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (a ListenAddress) MarshalText() ([]byte, error) { return []byte(a), nil }

// URL is an absolute http or https URL without credentials in it.
type URL string

// UnmarshalText never repeats what it was given in an error, because a URL may hold a password.
func (u *URL) UnmarshalText(text []byte) error {
	v, err := url.Parse(string(text))
	if err != nil || (v.Scheme != "http" && v.Scheme != "https") || v.Host == "" {
		return fmt.Errorf("not an http or https URL: write it like https://vault.factory.local:8200")
	}
	if v.User != nil {
		return fmt.Errorf("the URL holds credentials: name a secret instead")
	}
	*u = URL(text)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (u URL) MarshalText() ([]byte, error) { return []byte(u), nil }

// EngineAddress is where a Docker Engine listens: unix:///path of its socket.
type EngineAddress string

// UnmarshalText accepts Unix sockets only: bind mounts from the secrets' tmpfs need an engine on this machine.
func (a *EngineAddress) UnmarshalText(text []byte) error {
	path, found := strings.CutPrefix(string(text), "unix://")
	if !found || !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%q is not a Docker Engine on this machine: write it like unix:///var/run/docker.sock", text)
	}
	*a = EngineAddress(text)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (a EngineAddress) MarshalText() ([]byte, error) { return []byte(a), nil }
