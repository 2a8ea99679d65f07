package inflight

import (
	"fmt"
	"slices"
	"strings"
)

// Tally is a number of connections by what is known of them.
type Tally struct {
	// Busy are those on which something moved lately, or waits to be sent or read, or whose client has half closed.
	Busy int `json:"busy"`
	// Idle are those on which nothing moved for some time.
	Idle int `json:"idle"`
	// Unknown are those of which nothing can be told. They count as work.
	Unknown int `json:"unknown"`
}

// Done tells that there is nothing to wait for.
func (t Tally) Done() bool { return t.Busy == 0 && t.Unknown == 0 }

// Add returns the sum of both.
func (t Tally) Add(other Tally) Tally {
	return Tally{t.Busy + other.Busy, t.Idle + other.Idle, t.Unknown + other.Unknown}
}

// String is "2 busy, 1 unknown", or "none".
func (t Tally) String() string {
	var parts []string
	for _, part := range []struct {
		number int
		name   string
	}{{t.Busy, "busy"}, {t.Idle, "idle"}, {t.Unknown, "unknown"}} {
		if part.number > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.number, part.name))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// ServiceCount is what one service has under way.
type ServiceCount struct {
	Service string `json:"service"`
	Tally
}

// Counts is what a node has under way at one moment. The zero value is nothing.
type Counts struct {
	// Services are those with a running container that has ports, sorted by name.
	Services []ServiceCount `json:"services"`
}

// Total is the sum over all services.
func (c Counts) Total() Tally {
	var total Tally
	for _, s := range c.Services {
		total = total.Add(s.Tally)
	}
	return total
}

// Done tells that no service has anything to wait for.
func (c Counts) Done() bool { return c.Total().Done() }

// String is "api: 2 busy, 1 idle; web: 1 unknown", or "none", for a log.
func (c Counts) String() string {
	var parts []string
	for _, s := range c.Services {
		if s.Tally != (Tally{}) {
			parts = append(parts, s.Service+": "+s.Tally.String())
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, "; ")
}

// add counts one service's connections; a service is there with none, too.
func (c *Counts) add(service string, t Tally) {
	i, found := slices.BinarySearchFunc(c.Services, service, func(s ServiceCount, name string) int {
		return strings.Compare(s.Service, name)
	})
	if !found {
		c.Services = slices.Insert(c.Services, i, ServiceCount{Service: service})
	}
	c.Services[i].Tally = c.Services[i].Tally.Add(t)
}
