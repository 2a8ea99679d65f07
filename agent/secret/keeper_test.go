package secret_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
)

func TestANewKeeperNamesEveryImpossibleItem(t *testing.T) {
	source := func(s config.Source) config.Secret { return config.Secret{Name: "x", From: s} }
	for name, c := range map[string]struct {
		cfg  config.Secrets
		want []string
	}{
		"no source":        {items(config.Secret{Name: "a"}), []string{"secret a", "0 sources"}},
		"two sources":      {items(source(config.Source{File: &config.FileSource{Path: "/a"}, SSM: &config.SSMSource{Name: "a"}})), []string{"2 sources"}},
		"name twice":       {items(fileItem("a", "/a", ""), fileItem("a", "/b", "")), []string{"secret a", "twice"}},
		"several at once":  {items(config.Secret{Name: "a"}, fileItem("b", "/b", "x..y"), fileItem("c", "c", "")), []string{"secret a", "secret b", `"x..y"`, "secret c", "whole path"}},
		"no AWS":           {items(source(config.Source{SSM: &config.SSMSource{Name: "a"}})), []string{"AWS"}},
		"stage and id":     {items(source(config.Source{SecretsManager: &config.SecretsManagerSource{ID: "a", Stage: "s", VersionID: "v"}})), []string{"versionId"}},
		"no id":            {items(source(config.Source{SecretsManager: &config.SecretsManagerSource{}})), []string{"secretsManager.id"}},
		"credential path":  {items(source(config.Source{Credential: &config.CredentialSource{Name: "../x"}})), []string{"../x", "file name"}},
		"no Vault":         {items(source(config.Source{Vault: &config.VaultSource{Path: "a"}})), []string{"secrets.vault.address"}},
		"Vault path":       {items(source(config.Source{Vault: &config.VaultSource{Path: "a/../../sys"}})), []string{"a/../../sys"}},
		"Vault version":    {items(source(config.Source{Vault: &config.VaultSource{Path: "a", Version: -1}})), []string{"vault.version"}},
		"two identities":   {config.Secrets{Age: config.AgeIdentity{IdentityFile: "/a", IdentityCredential: "b"}, Items: []config.Secret{source(config.Source{Age: &config.AgeSource{File: "/f"}})}}, []string{"identityCredential"}},
		"Vault, no login":  {config.Secrets{Vault: config.Vault{Address: "http://v"}, Items: []config.Secret{source(config.Source{Vault: &config.VaultSource{Path: "a"}})}}, []string{"tokenFile or appRole"}},
		"Vault, half role": {config.Secrets{Vault: config.Vault{Address: "http://v", AppRole: &config.VaultAppRole{RoleID: "r"}}, Items: []config.Secret{source(config.Source{Vault: &config.VaultSource{Path: "a"}})}}, []string{"secretIdFile"}},
		"Vault, no CA":     {config.Secrets{Vault: config.Vault{Address: "https://v", TokenFile: "/t", CAFile: "/nowhere/ca.pem"}, Items: []config.Secret{source(config.Source{Vault: &config.VaultSource{Path: "a"}})}}, []string{"caFile", "/nowhere/ca.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := secret.NewKeeper(c.cfg, secret.Deps{})
			mustSay(t, err, c.want...)
		})
	}
}

func TestAFirstRefreshReportsEveryFailureAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good"), "fine")
	write(t, filepath.Join(dir, "json"), `{"user": "`+canary+`"}`)
	k := newKeeper(t, items(
		fileItem("good", filepath.Join(dir, "good"), ""),
		fileItem("absent", filepath.Join(dir, "absent"), ""),
		fileItem("keyless", filepath.Join(dir, "json"), "password"),
	), secret.Deps{})

	for _, s := range k.Status() {
		if s.State != secret.Missing || !s.FetchedAt.IsZero() || s.Error != "" {
			t.Errorf("before any refresh: got %+v, want it missing", s)
		}
	}
	changed, err := refuse(t, k)
	mustSay(t, err, "secret absent from file:"+dir+"/absent", "secret keyless from file:"+dir+"/json#password", `has no key "password", it has "user"`)
	if !errors.Is(err, secret.ErrNotFound) || errors.Is(err, secret.ErrUnavailable) {
		t.Errorf("got %v, want it to be ErrNotFound alone", err)
	}
	if diff := cmp.Diff([]string{"good"}, changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	mustHold(t, k, "good", "fine")
	mustLack(t, k, "absent")
	mustBeIn(t, k, "absent", secret.Missing)
	mustLack(t, k, "never configured")
}

func TestItemsOfOneDocumentShareAFetchAndChangeAlone(t *testing.T) {
	path := in(t, "app.json")
	write(t, path, `{"db": {"password": "one", "port": 5432}}`)
	k := newKeeper(t, items(fileItem("password", path, "db.password"), fileItem("port", path, "db.port")), secret.Deps{})
	if diff := cmp.Diff([]string{"password", "port"}, refresh(t, k)); diff != "" {
		t.Errorf("first refresh (-want +got):\n%s", diff)
	}
	write(t, path, `{"db": {"password": "two", "port": 5432}}`)
	if diff := cmp.Diff([]string{"password"}, refresh(t, k)); diff != "" {
		t.Errorf("after a rotation (-want +got):\n%s", diff)
	}
	if changed := refresh(t, k); changed != nil {
		t.Errorf("without a change: got %v, want none", changed)
	}
	mustHold(t, k, "password", "two")
	mustHold(t, k, "port", "5432")
}

func TestAnUnavailableSecretStaysInUseAndAGoneOneIsWithdrawn(t *testing.T) {
	path := in(t, "app.json")
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	start := now
	var log logBuffer
	k := newKeeper(t, items(fileItem("password", path, "password")), secret.Deps{Now: func() time.Time { return now }, Log: log.logger()})

	write(t, path, `{"password": "`+canary+`"}`)
	refresh(t, k)
	want := secret.Status{Name: "password", Source: "file:" + path + "#password", State: secret.Fresh, FetchedAt: start, ChangedAt: start}
	if diff := cmp.Diff(want, statusOf(t, k, "password")); diff != "" {
		t.Errorf("fresh (-want +got):\n%s", diff)
	}

	now = now.Add(time.Minute)
	write(t, path, `{"password": "`+canary)
	changed, err := refuse(t, k)
	mustBeOnly(t, err, secret.ErrUnavailable)
	if changed != nil {
		t.Errorf("stale: got changed %v, want none", changed)
	}
	mustHold(t, k, "password", canary)
	stale := statusOf(t, k, "password")
	if stale.State != secret.Stale || !stale.FetchedAt.Equal(start) || !strings.Contains(stale.Error, "not JSON") {
		t.Errorf("stale: got %+v", stale)
	}

	now = now.Add(time.Minute)
	write(t, path, `{"password": "`+canary+`"}`)
	if changed := refresh(t, k); changed != nil {
		t.Errorf("recovered with the same value: got changed %v, want none", changed)
	}
	if s := statusOf(t, k, "password"); s.State != secret.Fresh || s.Error != "" || !s.FetchedAt.Equal(now) || !s.ChangedAt.Equal(start) {
		t.Errorf("recovered: got %+v", s)
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	changed, err = refuse(t, k)
	mustBeOnly(t, err, secret.ErrNotFound)
	if diff := cmp.Diff([]string{"password"}, changed); diff != "" {
		t.Errorf("withdrawn (-want +got):\n%s", diff)
	}
	mustLack(t, k, "password")
	mustBeIn(t, k, "password", secret.Withdrawn)
	if len(k.Values()) != 0 {
		t.Errorf("Values after the withdrawal: got %d, want none", len(k.Values()))
	}

	write(t, path, `{"password": "`)
	if changed, _ = refuse(t, k); changed != nil {
		t.Errorf("unavailable after the withdrawal: got changed %v, want none", changed)
	}
	mustBeIn(t, k, "password", secret.Withdrawn)

	write(t, path, `{"password": "new"}`)
	if diff := cmp.Diff([]string{"password"}, refresh(t, k)); diff != "" {
		t.Errorf("back again (-want +got):\n%s", diff)
	}
	mustHold(t, k, "password", "new")
	mustHide(t, "log", log.String())
	for _, want := range []string{"state=stale", "state=withdrawn", "state=fresh", "secret=password", "phase=secrets"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log: got %s, want %s in it", log.String(), want)
		}
	}
}

func TestARepeatedFailureIsLoggedOnce(t *testing.T) {
	var log logBuffer
	k := newKeeper(t, items(fileItem("a", in(t, "absent"), "")), secret.Deps{Log: log.logger()})
	for range 3 {
		refuse(t, k)
	}
	if got := strings.Count(log.String(), "secret not fetched"); got != 1 {
		t.Errorf("got %d log lines, want 1:\n%s", got, log.String())
	}
}

func TestACancelledRefreshChangesNothing(t *testing.T) {
	path := in(t, "a")
	write(t, path, "one")
	k := newKeeper(t, items(fileItem("a", path, "")), secret.Deps{})
	refresh(t, k)
	before := k.Status()
	write(t, path, "two")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the node drains")
	cancel(stop)
	if _, err := k.Refresh(ctx); !errors.Is(err, stop) {
		t.Errorf("got %v, want the cause", err)
	}
	if diff := cmp.Diff(before, k.Status()); diff != "" {
		t.Errorf("status changed (-before +after):\n%s", diff)
	}
	mustHold(t, k, "a", "one")
}

func TestStatusIsSortedAndTravelsAsJSON(t *testing.T) {
	path := in(t, "a")
	write(t, path, canary)
	k := newKeeper(t, items(fileItem("b", path, ""), fileItem("a", in(t, "absent"), ""), fileItem("c", path, "")), secret.Deps{})
	refuse(t, k)
	encoded, err := json.Marshal(k.Status())
	if err != nil {
		t.Fatal(err)
	}
	mustHide(t, "status", string(encoded))
	var decoded []map[string]any
	if err := json.Unmarshal(encoded, &decoded); err != nil {
		t.Fatal(err)
	}
	var names []any
	for _, s := range decoded {
		names = append(names, s["name"])
	}
	if diff := cmp.Diff([]any{"a", "b", "c"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if _, shown := decoded[0]["fetchedAt"]; shown {
		t.Errorf("a secret that was never fetched: got %v, want no fetchedAt", decoded[0])
	}
}

func TestAPipeIsRefusedWithoutWaitingForItsWriter(t *testing.T) {
	path := in(t, "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, items(fileItem("a", path, "")), secret.Deps{})
	_, err := refuse(t, k)
	mustSay(t, err, "not a regular file")
	mustBeOnly(t, err, secret.ErrNotFound)
}

// running starts Run in a synctest bubble and returns what changed, by refresh; those without a change are left out.
func running(t *testing.T, k *secret.Keeper) (calls func() []string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	heard := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- k.Run(ctx, func(_ context.Context, changed []string) {
			if len(changed) > 0 {
				heard <- strings.Join(changed, ",")
			}
		})
	}()
	calls = func() []string {
		synctest.Wait()
		var all []string
		for {
			select {
			case c := <-heard:
				all = append(all, c)
			default:
				return all
			}
		}
	}
	return calls, func() error { cancel(errStopped); return <-ended }
}

var errStopped = errors.New("stopped by the test")

// after lets time pass in a synctest bubble.
func after(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	synctest.Wait()
}

func TestRunRefreshesAtItsIntervalSpreadByATenth(t *testing.T) {
	for _, c := range []struct {
		rand float64
		wait time.Duration
	}{{0, 54 * time.Second}, {0.5, time.Minute}, {1, 66 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			path := in(t, "a")
			write(t, path, "one")
			cfg := items(fileItem("a", path, ""))
			cfg.Refresh = config.Duration(time.Minute)
			k := newKeeper(t, cfg, secret.Deps{Rand: func() float64 { return c.rand }})
			calls, stop := running(t, k)
			if diff := cmp.Diff([]string{"a"}, calls()); diff != "" {
				t.Errorf("it begins with a refresh (-want +got):\n%s", diff)
			}
			write(t, path, "two")
			after(t, c.wait-time.Millisecond)
			if got := calls(); got != nil {
				t.Errorf("rand %v, just before %s: got %v, want nothing yet", c.rand, c.wait, got)
			}
			after(t, time.Millisecond)
			if diff := cmp.Diff([]string{"a"}, calls()); diff != "" {
				t.Errorf("rand %v, after %s (-want +got):\n%s", c.rand, c.wait, diff)
			}
			mustHold(t, k, "a", "two")
			after(t, 10*time.Minute)
			if got := calls(); got != nil {
				t.Errorf("nothing changed: got %v", got)
			}
			if err := stop(); !errors.Is(err, errStopped) {
				t.Errorf("Run: got %v, want the cause of its end", err)
			}
		})
	}
}

func TestRunWaitsAfterARefreshThatAlreadyHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := in(t, "a")
		write(t, path, "one")
		cfg := items(fileItem("a", path, ""))
		cfg.Refresh = config.Duration(time.Minute)
		k := newKeeper(t, cfg, secret.Deps{Rand: func() float64 { return 0.5 }})
		refresh(t, k)
		write(t, path, "two")
		calls, stop := running(t, k)
		if got := calls(); got != nil {
			t.Errorf("at once: got %v, want nothing", got)
		}
		after(t, time.Minute)
		if diff := cmp.Diff([]string{"a"}, calls()); diff != "" {
			t.Errorf("after the interval (-want +got):\n%s", diff)
		}
		_ = stop()
	})
}

func TestRunBacksOffWithFullJitterUpToTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := in(t, "a")
		cfg := items(fileItem("a", path, ""))
		cfg.Refresh = config.Duration(10 * time.Second)
		var asked atomic.Int64
		k := newKeeper(t, cfg, secret.Deps{
			Rand: func() float64 { asked.Add(1); return 1 },
		})
		calls, stop := running(t, k)
		calls()
		// The first try came at once; with the top of the jitter the next ones come after 2, 4, 8, 10 and 10 seconds.
		for i, wait := range []time.Duration{2, 4, 8, 10, 10} {
			if got, want := asked.Load(), int64(i+1); got != want {
				t.Fatalf("before wait %d: got %d failures, want %d", i, got, want)
			}
			after(t, wait*time.Second-time.Millisecond)
			if got, want := asked.Load(), int64(i+1); got != want {
				t.Fatalf("just before %d s: got %d failures, want %d", wait, got, want)
			}
			after(t, time.Millisecond)
		}
		write(t, path, "here")
		after(t, 10*time.Second)
		if diff := cmp.Diff([]string{"a"}, calls()); diff != "" {
			t.Errorf("once it is there (-want +got):\n%s", diff)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		after(t, 11*time.Second)
		if diff := cmp.Diff([]string{"a"}, calls()); diff != "" {
			t.Errorf("once it is gone (-want +got):\n%s", diff)
		}
		failures := asked.Load()
		after(t, 2*time.Second)
		if got := asked.Load(); got != failures+1 {
			t.Errorf("after a success the back-off begins anew: got %d tries in 2 s, want 1", got-failures)
		}
		_ = stop()
	})
}

func TestRunTellsOfRefreshesThatChangedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := in(t, "a")
		write(t, path, "one")
		cfg := items(fileItem("a", path, ""))
		cfg.Refresh = config.Duration(time.Minute)
		k := newKeeper(t, cfg, secret.Deps{Rand: func() float64 { return 0.5 }})
		ctx, cancel := context.WithCancel(t.Context())
		var told [][]string
		go func() {
			_ = k.Run(ctx, func(_ context.Context, changed []string) { told = append(told, changed) })
		}()
		synctest.Wait()
		after(t, 2*time.Minute)
		cancel()
		synctest.Wait()
		if diff := cmp.Diff([][]string{{"a"}, nil, nil}, told); diff != "" {
			t.Errorf("three refreshes, one change (-want +got):\n%s", diff)
		}
	})
}

func TestRunWithoutAnIntervalOnlyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := in(t, "a")
		write(t, path, "one")
		calls, stop := running(t, newKeeper(t, items(fileItem("a", path, "")), secret.Deps{}))
		after(t, 24*time.Hour)
		if got := calls(); got != nil {
			t.Errorf("got %v, want nothing", got)
		}
		if err := stop(); !errors.Is(err, errStopped) {
			t.Errorf("Run: got %v, want the cause of its end", err)
		}
	})
}
