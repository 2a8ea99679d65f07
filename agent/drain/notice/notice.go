// Package notice tells what EC2 announces to an instance: that Auto Scaling wants it in another state, that a spot
// instance will be taken back or may soon be, that its host is due for maintenance.
//
// What enters is a Getter for instance metadata; what leaves are Notices, each exactly once. It never decides what
// follows from one, and never takes silence for news: a path that isn't there says nothing at all.
//
// It is the one poller of four paths, and asks one question at a time over the Getter's one connection and cached token.
// The target lifecycle state is asked for every 2.025 s, which is how late a node may learn of its termination, and scheduled
// maintenance once in ten minutes: with a token every five minutes at most one request in 2 s. A spot instance is also asked
// for its interruption once in 10 s and for a rebalance recommendation once in 30 s, which makes 0.63 a second. Never do two
// questions come within a second while the service answers in time; EC2 allows 1024 packets a second, which DNS shares.
//
// Polls carry no jitter. Every instance has a metadata service of its own, so there is nobody to make room for, and a
// poll that is late by chance is a notice that is late by chance.
package notice

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Kind is what a notice is about.
type Kind string

const (
	// Terminate: Auto Scaling ends this instance; its target lifecycle state is Terminated. It comes once.
	Terminate Kind = "terminate"
	// Lifecycle: the target lifecycle state is another one than before, or the first one that was seen. Detail is the
	// state. Warmed:Terminated, the end of an instance that waited in a warm pool, is of this kind too.
	Lifecycle Kind = "lifecycle"
	// Spot: EC2 takes the instance back. Detail is stop, terminate or hibernate; At is about two minutes away, and
	// hibernation begins at once.
	Spot Kind = "spot"
	// Rebalance: EC2 sees a higher risk of taking the instance back. It is advice, and says nothing of when.
	Rebalance Kind = "rebalance"
	// Maintenance: the instance will be rebooted, stopped or retired, or its host be worked on. Detail begins with the
	// event's code, such as system-reboot.
	Maintenance Kind = "maintenance"
)

// The target lifecycle states, from "Retrieve the target lifecycle state through instance metadata" in the Amazon EC2
// Auto Scaling User Guide. The last four are those of a warm pool.
const (
	InService        = "InService"
	Terminated       = "Terminated"
	Detached         = "Detached"
	Standby          = "Standby"
	WarmedHibernated = "Warmed:Hibernated"
	WarmedRunning    = "Warmed:Running"
	WarmedStopped    = "Warmed:Stopped"
	WarmedTerminated = "Warmed:Terminated"
)

// Notice is one thing that EC2 announced.
type Notice struct {
	Kind Kind
	// ID is the same whenever the same thing is announced, to another run of the agent as well. It is made of nothing but
	// what was announced. A lifecycle state has no other identity than its name, so all but Terminated may come again.
	ID string
	// At is when it takes effect, in UTC; zero when that is unknown. For maintenance it is the window's begin.
	At time.Time
	// Detail is the state, the action, or the maintenance event's code and window: at most one line.
	Detail string
}

// doubt is something in an answer that this package doesn't understand.
type doubt struct {
	about string // one of few fixed sentences
	word  string // what was found, "" where the whole answer is meant
	err   error  // may be nil
}

const (
	// isoDate is how spot and rebalance notices give times: "2017-09-18T08:22:00Z", in UTC.
	isoDate = time.RFC3339
	// mailDate is how maintenance events give them: "21 Jan 2019 09:00:43 GMT". See "Scheduled events for Amazon EC2
	// instances" in the Amazon EC2 User Guide.
	mailDate = "2 Jan 2006 15:04:05 GMT"
	// longestLine is how many characters of a foreign word are shown: more than any that AWS documents, and less than a
	// terminal's line with the rest of a log event.
	longestLine = 80
)

const (
	unreadable    = "the answer isn't the JSON that EC2 documents"
	unknownState  = "unknown lifecycle state"
	unknownAction = "unknown spot action"
	unknownStage  = "unknown state of a maintenance event"
	unknownTime   = "unknown form of a time"
)

// readLifecycle reads autoscaling/target-lifecycle-state.
func readLifecycle(answer string) ([]Notice, []doubt) {
	kind := Lifecycle
	switch answer {
	case Terminated:
		kind = Terminate
	case InService, Detached, Standby, WarmedHibernated, WarmedRunning, WarmedStopped, WarmedTerminated:
	default:
		return nil, []doubt{{about: unknownState, word: answer}}
	}
	return []Notice{{Kind: kind, ID: "lifecycle/" + answer, Detail: answer}}, nil
}

// readSpot reads spot/instance-action. An interruption whose time can't be read is announced all the same.
func readSpot(answer string) (notices []Notice, doubts []doubt) {
	var spot struct {
		Action string `json:"action"`
		Time   string `json:"time"`
	}
	if err := json.Unmarshal([]byte(answer), &spot); err != nil {
		return nil, []doubt{{about: unreadable, err: err}}
	}
	if !slices.Contains([]string{"stop", "terminate", "hibernate"}, spot.Action) {
		return nil, []doubt{{about: unknownAction, word: spot.Action}}
	}
	at, err := time.Parse(isoDate, spot.Time)
	if err != nil {
		doubts = []doubt{{about: unknownTime, word: spot.Time}}
	}
	return []Notice{{Kind: Spot, ID: identify("spot", spot.Action, at), At: at.UTC(), Detail: spot.Action}}, doubts
}

// readRebalance reads events/recommendations/rebalance. The time in it is when the advice was given, and identifies it;
// when something would happen is unknown.
func readRebalance(answer string) ([]Notice, []doubt) {
	var rebalance struct {
		NoticeTime string `json:"noticeTime"`
	}
	if err := json.Unmarshal([]byte(answer), &rebalance); err != nil {
		return nil, []doubt{{about: unreadable, err: err}}
	}
	given, err := time.Parse(isoDate, rebalance.NoticeTime)
	if err != nil {
		return nil, []doubt{{about: unknownTime, word: rebalance.NoticeTime}}
	}
	return []Notice{{Kind: Rebalance, ID: identify("rebalance", "", given), Detail: "recommended at " + iso(given)}}, nil
}

// readMaintenance reads events/maintenance/scheduled. What is completed or canceled is no announcement any more. An event
// that was moved to another time keeps its EventId at EC2 and is a new announcement here.
func readMaintenance(answer string) (notices []Notice, doubts []doubt) {
	var events []struct {
		Code, EventID, State, NotBefore, NotAfter string
	}
	if err := json.Unmarshal([]byte(answer), &events); err != nil {
		return nil, []doubt{{about: unreadable, err: err}}
	}
	for _, e := range events {
		switch e.State {
		case "active":
		case "completed", "canceled":
			continue
		default:
			doubts = append(doubts, doubt{about: unknownStage, word: e.State})
			continue
		}
		begin, err := time.Parse(mailDate, e.NotBefore)
		if err != nil {
			doubts = append(doubts, doubt{about: unknownTime, word: e.NotBefore})
		}
		// The end is for people only, and EC2 leaves it out where it knows none.
		end, _ := time.Parse(mailDate, e.NotAfter)
		detail := line(e.Code)
		switch {
		case !begin.IsZero() && !end.IsZero():
			detail += " from " + iso(begin) + " to " + iso(end)
		case !begin.IsZero():
			detail += " from " + iso(begin)
		}
		name := e.EventID
		if name == "" {
			name = e.Code
		}
		notices = append(notices, Notice{Kind: Maintenance, ID: identify("maintenance", line(name), begin), At: begin, Detail: detail})
	}
	return notices, doubts
}

// identify makes an id of what was announced; its parts may be empty.
func identify(kind, name string, at time.Time) string {
	id := kind
	if name != "" {
		id += "/" + name
	}
	if !at.IsZero() {
		id += "/" + iso(at)
	}
	return id
}

// iso writes one moment in one way, however it was written before.
func iso(t time.Time) string { return t.UTC().Format(isoDate) }

// line makes a foreign word fit for one line of a log or a page.
func line(word string) string {
	word = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, word)
	if runes := []rune(word); len(runes) > longestLine {
		return string(runes[:longestLine-1]) + "…"
	}
	return word
}
