package e2e

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/internal/awsfake"
)

func TestARotatedSecretReachesItsFileWithoutARecreate(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/rotated")
	a := n.boot()
	before := n.boxes()
	n.rotate("e2e/quiet", "quiet-number-two")
	stdout, stderr, code := n.flowagent("secrets", "refresh")
	if code != 0 || strings.TrimSpace(stdout) != "changed: quiet" {
		t.Errorf("secrets refresh: got %q, %q and code %d, want quiet changed", stdout, stderr, code)
	}
	n.checkReads("reads", "/run/secrets/quiet", "quiet-number-two")
	n.checkReads("ends", "/run/secrets/quiet", "quiet-number-two")
	n.checkUntouched(before)
	if stdout, _, code := n.flowagent("secrets", "refresh"); code != 0 || strings.TrimSpace(stdout) != "nothing changed" {
		t.Errorf("secrets refresh once more: got %q and code %d, want nothing changed", stdout, code)
	}
	// An agent that starts later finds everything as it should be.
	a.kill()
	n.boot()
	n.checkUntouched(before)
	n.checkTidy()
}

func TestARotatedSecretArrivesByItselfAfterTheInterval(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/rotated")
	n.dropIn("50-refresh.yaml", "secrets: {refresh: 10s}\n") // the shortest that is allowed
	a := n.boot()
	before := n.boxes()
	n.rotate("e2e/quiet", "quiet-number-two")
	a.await("secret changed", func(e event) bool { return e.Msg == "secret changed" && strings.Contains(e.line, "quiet") })
	eventually(t, "the new value in the file", func() bool {
		got, err := n.inside("reads", "cat", "/run/secrets/quiet")
		return err == nil && got == "quiet-number-two"
	})
	n.checkUntouched(before)
}

func TestARotatedSecretIsSignalled(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/rotated")
	n.boot()
	before := n.boxes()
	n.rotate("e2e/signalled", `{"password": "signalled-number-two"}`)
	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	n.awaitLog("listens", "SIGHUP")
	n.checkReads("listens", "/run/secrets/signalled", "signalled-number-two")
	n.checkUntouched(before)
	if got := strings.Count(n.logs("listens"), "SIGHUP"); got != 1 {
		t.Errorf("got %d signals, want 1", got)
	}
	// Another part of the document is not this secret.
	n.rotate("e2e/signalled", `{"password": "signalled-number-two", "comment": "new"}`)
	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(n.logs("listens"), "SIGHUP"); got != 1 {
		t.Errorf("after a change beside the secret: got %d signals, want still 1", got)
	}
}

func TestARotatedSecretRecreatesJustTheServiceThatWantsIt(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/rotated")
	a := n.boot()
	before := n.boxes()
	n.rotate("e2e/restarted", "restarted-number-two")
	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	n.checkUntouched(before, "reads", "listens", "bystander")
	after := n.boxes()
	if after["ends"].ID == before["ends"].ID {
		t.Error("the container of ends is the same, want a new one")
	}
	n.checkReads("ends", "/run/secrets/restarted", "restarted-number-two")
	if code, _ := n.health(); code != 200 {
		t.Errorf("/health: got %d, want 200", code)
	}
	// Once is enough: neither the next refresh nor the next agent does it again.
	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	n.checkUntouched(after)
	a.stop()
	n.boot()
	n.checkUntouched(after)
}

func TestARecreationThatFailedIsTriedAgainAtTheNextRefresh(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/rotated")
	n.boot()
	before := n.boxes()
	override := filepath.Join(n.run(), "compose.override.yaml")
	content, err := os.ReadFile(override)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(override), os.Mkdir(override, 0o700)); err != nil { // can't be replaced by a file
		t.Fatal(err)
	}
	n.rotate("e2e/restarted", "restarted-number-two")
	for range 2 { // and a refresh that finds nothing new doesn't forget it
		if err := n.refresh(); err == nil || !strings.Contains(err.Error(), "recreate ends") {
			t.Errorf("refresh: got %v, want that ends could not be recreated", err)
		}
		if code, _ := n.health(); code != 503 {
			t.Errorf("/health of a node that runs with an old secret: got %d, want 503", code)
		}
		if problems := strings.Join(n.status().Problems, " "); !strings.Contains(problems, "recreate ends") {
			t.Errorf("status: got problems %q, want them to name ends", problems)
		}
	}
	n.checkUntouched(before)

	if err := errors.Join(os.Remove(override), os.WriteFile(override, content, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	n.checkUntouched(before, "reads", "listens", "bystander")
	if n.boxes()["ends"].ID == before["ends"].ID {
		t.Error("the container of ends is the same, want a new one")
	}
	n.checkReads("ends", "/run/secrets/restarted", "restarted-number-two")
	if code, _ := n.health(); code != 200 || len(n.status().Problems) != 0 {
		t.Errorf("afterwards: got /health %d and problems %v, want 200 and none", code, n.status().Problems)
	}
}

func TestASecretThatRotatedWhileNoAgentRanIsDelivered(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/rotated")
	n.boot().stop()
	before := n.boxes()
	n.rotate("e2e/quiet", "quiet-number-two")
	n.rotate("e2e/signalled", `{"password": "signalled-number-two"}`)
	n.rotate("e2e/restarted", "restarted-number-two")
	n.boot()
	n.checkUntouched(before, "reads", "listens", "bystander")
	n.checkReads("reads", "/run/secrets/quiet", "quiet-number-two")
	n.checkReads("ends", "/run/secrets/restarted", "restarted-number-two")
	n.awaitLog("listens", "SIGHUP")
}

func TestASecretStaysInUseWhileItsSourceIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]awsfake.Fault{
		"throttled": awsfake.Throttled(), "unavailable": awsfake.Unavailable(), "cut off": awsfake.LoseReply(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "stories/rotated")
			n.boot()
			before := n.boxes()
			n.aws.Inject("BatchGetSecretValue", awsfake.Always, fault)
			n.aws.Inject("GetSecretValue", awsfake.Always, fault)
			if err := n.refresh(); err == nil {
				t.Error("refresh: got no error, want what the source said")
			}
			if got := n.secretState("quiet"); got != "stale" {
				t.Errorf("got the secret %s, want it stale", got)
			}
			n.checkReads("reads", "/run/secrets/quiet", "quiet-number-one")
			if stdout, _, _ := n.flowagent("secrets", "list"); !strings.Contains(stdout, "stale") {
				t.Errorf("secrets list: got %s, want it to say stale", stdout)
			}
			if code, _ := n.health(); code != 200 {
				t.Errorf("/health: got %d, want 200: the node still serves", code)
			}
			n.aws.Heal("BatchGetSecretValue")
			n.aws.Heal("GetSecretValue")
			if err := n.refresh(); err != nil {
				t.Error(err)
			}
			if got := n.secretState("quiet"); got != "fresh" {
				t.Errorf("afterwards: got the secret %s, want it fresh", got)
			}
			n.checkUntouched(before)
		})
	}
}

func TestASecretIsWithdrawnWhenItsSourceSaysSo(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(n *node){
		"denied": func(n *node) {
			n.aws.Inject("BatchGetSecretValue", awsfake.Always, awsfake.AccessDenied())
			n.aws.Inject("GetSecretValue", awsfake.Always, awsfake.AccessDenied())
		},
		"deleted": func(n *node) {
			for _, secret := range []string{"e2e/quiet", "e2e/signalled", "e2e/restarted"} {
				n.deleteSecret(secret)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "stories/rotated")
			n.boot()
			before := n.boxes()
			end(n)
			if err := n.refresh(); err == nil {
				t.Error("refresh: got no error, want what the source said")
			}
			if got := n.secretState("quiet"); got != "withdrawn" {
				t.Errorf("got the secret %s, want it withdrawn", got)
			}
			if got, err := n.inside("reads", "cat", "/run/secrets/quiet"); err == nil {
				t.Errorf("the file is still there and has %d bytes, want it gone", len(got))
			}
			if stdout, _, _ := n.flowagent("secrets", "list"); !strings.Contains(stdout, "withdrawn") {
				t.Errorf("secrets list: got %s, want it to say withdrawn", stdout)
			}
			n.checkUntouched(before, "reads", "listens", "bystander")
			n.checkTidy()
		})
	}
}

func TestASignalThatAKilledAgentOwedIsSentByTheNext(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/rotated")
	g := n.gateEngine()
	a := n.boot()
	before := n.boxes()
	place := g.hold(t, "the signal", request(http.MethodPost, "/containers/[^/]+/kill"))
	n.rotate("e2e/signalled", `{"password": "signalled-number-two"}`)
	refreshed := make(chan error, 1)
	go func() { refreshed <- n.refresh() }()
	place.awaitArrival(a)
	a.kill()
	if err := <-refreshed; err == nil {
		t.Error("refresh: got no error from an agent that was killed")
	}
	place.release()
	n.boot()
	n.awaitLog("listens", "SIGHUP")
	n.checkUntouched(before)
}
