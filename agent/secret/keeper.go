// Package secret fetches the secrets a node needs, keeps them in memory, and puts them where containers read them.
//
// What enters are the configuration's items, each of which says where one secret is kept; what leaves are values for the
// store on tmpfs and for registry logins, and a status without values. A [Keeper] never writes a value anywhere, never
// derives anything printable from one, and shows none in an error or a log line.
package secret

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/cenkalti/backoff/v5"

	"github.com/flowviz/flowagent/agent/config"
)

const (
	// firstRetry is the longest wait after a first failure; a throttled second or a leader election is over by then.
	firstRetry = 2 * time.Second
	// lastRetry is the longest wait of all, unless refreshes are more frequent anyway.
	lastRetry = 5 * time.Minute
	// refreshSpread is the part of the refresh interval that is random, half of it either way, so that a fleet that
	// booted together doesn't ask together for ever.
	refreshSpread = 0.2
)

// Deps is what a Keeper needs from its surroundings.
type Deps struct {
	// AWS gives the SDK's configuration for a region; "" is the node's own. Needed when an item is kept in AWS; may be
	// called several times at once.
	AWS func(ctx context.Context, region string) (aws.Config, error)
	// CredentialsDirectory is $CREDENTIALS_DIRECTORY, where systemd put this unit's credentials; empty when there are none.
	CredentialsDirectory string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Rand gives numbers from 0 up to 1 for jitter; nil means math/rand.
	Rand func() float64
	// Log gets one event for each change of an item's state; nil means none.
	Log *slog.Logger
}

// item is one configured secret and what is known of it. All but the first three fields are guarded by Keeper.mu.
type item struct {
	name    string
	locator locator
	key     string

	value     Value
	state     State
	version   string
	fetchedAt time.Time
	changedAt time.Time
	problem   error
}

// where names an item's place for people.
func (i *item) where() string {
	if i.key == "" {
		return i.locator.String()
	}
	return i.locator.String() + "#" + i.key
}

// Keeper holds the node's secrets in memory and fetches them again. Its methods may be called at the same time.
type Keeper struct {
	interval time.Duration
	sources  []source
	items    []*item // sorted by name
	now      func() time.Time
	rand     func() float64
	log      *slog.Logger

	// busy is held during a refresh: a second one would ask for the same things.
	busy chan struct{}

	mu      sync.RWMutex
	asked   bool // a refresh has ended
	failing bool // the last one ended with an error
}

// NewKeeper prepares to fetch what cfg lists and fetches nothing yet. It refuses, all at once, items that can never be
// fetched: no or several sources, a malformed key path, a name used twice, Vault or AWS without what they need.
func NewKeeper(cfg config.Secrets, deps Deps) (*Keeper, error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Rand == nil {
		deps.Rand = rand.Float64
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{
		interval: time.Duration(cfg.Refresh),
		now:      deps.Now,
		rand:     deps.Rand,
		log:      deps.Log.With("phase", "secrets"),
		busy:     make(chan struct{}, 1),
	}
	var problems []error
	seen := make(map[string]bool)
	for _, entry := range cfg.Items {
		l, key, err := locate(entry.From)
		if err == nil && seen[entry.Name] {
			err = errors.New("the name is used twice: keep one")
		}
		seen[entry.Name] = true
		if err == nil && key != "" {
			_, err = parsePath(key)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("secret %s: %w", entry.Name, err))
			continue
		}
		k.items = append(k.items, &item{name: entry.Name, locator: l, key: key, state: Missing})
	}
	slices.SortFunc(k.items, func(a, b *item) int { return strings.Compare(a.name, b.name) })
	sources, err := makeSources(k.items, cfg, deps)
	if err := errors.Join(append(problems, err)...); err != nil {
		return nil, err
	}
	k.sources = sources
	return k, nil
}

// Refresh fetches every secret once and returns the sorted names of those whose value changed, also by arriving or by
// being withdrawn.
//
// The error joins what went wrong with each item that could not be fetched; each part wraps ErrNotFound, ErrDenied or
// ErrUnavailable and names its item. An item with an earlier value keeps it on ErrUnavailable and loses it on the
// others. So an error from the first Refresh means that a secret is missing; later, Status tells what each is worth.
// When ctx is cancelled nothing changes. Two calls run one after the other.
func (k *Keeper) Refresh(ctx context.Context) ([]string, error) {
	select {
	case k.busy <- struct{}{}:
		defer func() { <-k.busy }()
	case <-ctx.Done():
		return nil, fmt.Errorf("refresh secrets: %w", context.Cause(ctx))
	}
	answers := k.ask(ctx)
	// Past its deadline a refresh still tells what each source had to say; a cancelled one would only tell that it was.
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, fmt.Errorf("refresh secrets: %w", context.Cause(ctx))
	}
	return k.take(answers)
}

// ask fetches from all sources at the same time.
func (k *Keeper) ask(ctx context.Context) map[locator]answer {
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	sheet := newAnswerSheet()
	var group sync.WaitGroup
	for _, s := range k.sources {
		group.Go(func() {
			for l, a := range s.fetch(ctx) {
				sheet.put(l, a)
			}
		})
	}
	group.Wait()
	return sheet.answers
}

// take brings the items up to date with the answers.
func (k *Keeper) take(answers map[locator]answer) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	picked := make([]Value, len(k.items))
	failures := make([]error, len(k.items))
	for i, it := range k.items {
		picked[i], failures[i] = answers[it.locator].pick(it.key)
	}
	// Servers write parts of error texts. Whatever they say, no known value leaves in one.
	known := slices.Clone(picked)
	for _, it := range k.items {
		known = append(known, it.value)
	}
	var (
		changed  []string
		problems []error
	)
	for i, it := range k.items {
		before := *it
		if err := failures[i]; err != nil {
			it.fail(&itemError{
				text: conceal(fmt.Sprintf("secret %s from %s: %v", it.name, it.where(), err), known),
				kind: kindOf(err),
			})
			problems = append(problems, it.problem)
		} else {
			it.renew(picked[i], answers[it.locator].version, k.now())
		}
		if !it.value.Equal(before.value) {
			changed = append(changed, it.name)
		}
		k.report(&before, it)
	}
	k.asked, k.failing = true, len(problems) > 0
	return changed, errors.Join(problems...)
}

// renew takes over a value that was fetched.
func (i *item) renew(v Value, version string, now time.Time) {
	if !v.Equal(i.value) {
		i.value, i.changedAt = v, now
	}
	i.state, i.version, i.fetchedAt, i.problem = Fresh, version, now, nil
}

// fail decides what an item without a new answer is worth.
func (i *item) fail(problem *itemError) {
	i.problem = problem
	switch {
	case i.value.IsZero(): // missing or withdrawn before, and still so
	case problem.kind == ErrUnavailable:
		i.state = Stale
	default:
		i.value, i.state = Value{}, Withdrawn
	}
}

// report logs an item's state when it is another one, and each new value.
func (k *Keeper) report(before, after *item) {
	attributes := []any{"secret", after.name, "source", after.where(), "state", after.state, "version", after.version}
	switch {
	case after.problem != nil && (before.problem == nil || before.state != after.state || before.problem.Error() != after.problem.Error()):
		k.log.Warn("secret not fetched", append(attributes, "error", after.problem.Error())...)
	case after.problem != nil:
	case before.state != Fresh:
		k.log.Info("secret fetched", attributes...)
	case !before.value.Equal(after.value):
		k.log.Info("secret changed", attributes...)
	}
}

// itemError is what Refresh says about one item. It keeps text and kind alone, so that nothing that errors.As could dig
// out of a library's error is carried along.
type itemError struct {
	text string
	kind error
}

func (e *itemError) Error() string { return e.text }
func (e *itemError) Unwrap() error { return e.kind }

// conceal replaces every known value in text.
func conceal(text string, known []Value) string {
	// Shorter values are ports, booleans and words that any message is made of.
	const shortest = 6
	for _, v := range known {
		if secret := v.Reveal(); len(secret) >= shortest {
			text = strings.ReplaceAll(text, string(secret), redacted)
		}
	}
	return text
}

// Run fetches at the configured interval, spread by a tenth either way, until ctx ends, and returns why it did. Before
// any Refresh has ended it begins with one. After a failure it tries again with full jitter under a limit that doubles
// from firstRetry up to the interval or lastRetry, whichever is shorter. With an interval of 0 it only waits for ctx.
//
// refreshed gets the names that Refresh returned, none among them when nothing changed, and is waited for.
func (k *Keeper) Run(ctx context.Context, refreshed func(ctx context.Context, changed []string)) error {
	if k.interval <= 0 {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	retry := &backoff.ExponentialBackOff{
		InitialInterval: firstRetry,
		Multiplier:      2,
		MaxInterval:     min(k.interval, lastRetry),
	}
	retry.Reset()
	for {
		timer := time.NewTimer(k.pause(retry))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		changed, _ := k.Refresh(ctx) // its failures are in the status, in the log, and in the next pause
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		refreshed(ctx, changed)
	}
}

// pause is how long to wait for the next refresh.
func (k *Keeper) pause(retry *backoff.ExponentialBackOff) time.Duration {
	k.mu.RLock()
	asked, failing := k.asked, k.failing
	k.mu.RUnlock()
	switch {
	case !asked:
		return 0
	case failing:
		return time.Duration(k.rand() * float64(retry.NextBackOff()))
	default:
		retry.Reset()
		return time.Duration(float64(k.interval) * (1 - refreshSpread/2 + refreshSpread*k.rand()))
	}
}

// Value returns one secret; false when it isn't configured, was never fetched or was withdrawn.
func (k *Keeper) Value(name string) (Value, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, it := range k.items {
		if it.name == name {
			return it.value, !it.value.IsZero()
		}
	}
	return Value{}, false
}

// Values returns every secret that has a value, by name; for checks that none of them leaked.
func (k *Keeper) Values() map[string]Value {
	k.mu.RLock()
	defer k.mu.RUnlock()
	values := make(map[string]Value, len(k.items))
	for _, it := range k.items {
		if !it.value.IsZero() {
			values[it.name] = it.value
		}
	}
	return values
}
