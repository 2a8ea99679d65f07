package secret_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/internal/awsfake"
)

// TestNoSourceShowsASecret takes one secret from every kind of source through its life (fetched, rotated, its key lost,
// its document damaged, its source failing) and looks for it in all that a Keeper says.
func TestNoSourceShowsASecret(t *testing.T) {
	c, r, dir := newCloud(t), newVaultRoom(t), t.TempDir()
	identity := newIdentity(t)
	write(t, filepath.Join(dir, "age.key"), identity.String())
	fill := func(document string) {
		c.rotate("app", document)
		c.putParameter("app", document)
		write(t, filepath.Join(dir, "plain"), document)
		write(t, filepath.Join(dir, "credential"), document)
		sealed(t, filepath.Join(dir, "s.age"), document, false, identity.Recipient())
		if json.Valid([]byte(document)) {
			r.Put("secret/flowviz/app", document)
		}
	}
	c.create("app", "{}")
	cfg := config.Secrets{
		Age:   config.AgeIdentity{IdentityFile: filepath.Join(dir, "age.key")},
		Vault: r.approle,
		Items: []config.Secret{
			smItem("sm", config.SecretsManagerSource{ID: "app", Key: "db.password"}),
			smItem("sm-again", config.SecretsManagerSource{ID: "app", Stage: "AWSPREVIOUS", Key: "db.password"}),
			ssmItem("ssm", "app", "db.password"),
			ageItem("age", filepath.Join(dir, "s.age"), "db.password"),
			{Name: "credential", From: config.Source{Credential: &config.CredentialSource{Name: "credential", Key: "db.password"}}},
			fileItem("file", filepath.Join(dir, "plain"), "db.password"),
			vaultItem("vault", "flowviz/app", "db.password", 0),
		},
	}
	var log logBuffer
	deps := c.deps()
	deps.Log, deps.CredentialsDirectory, deps.Now = log.logger(), dir, r.clock
	k := newKeeper(t, cfg, deps)

	for _, step := range []struct {
		what   string
		do     func()
		failed int // of the 7 items
	}{
		{"fetched", func() {
			fill(`{"db": {"password": "` + canary + `-0"}}`)
			fill(`{"db": {"password": "` + canary + `"}}`)
		}, 0},
		{"rotated", func() { fill(`{"db": {"password": "` + canary + `-2"}}`) }, 0},
		{"key lost", func() { fill(`{"db": "` + canary + `-2"}`) }, 6},
		{"document damaged", func() { fill(`{"db": {"password": "` + canary) }, 7},
		{"sources failing", func() {
			c.Inject("GetSecretValue", awsfake.Always, awsfake.AccessDenied())
			c.Inject("GetParameters", awsfake.Always, awsfake.AccessDenied())
			r.Seal(true)
			write(t, filepath.Join(dir, "age.key"), newIdentity(t).String())
		}, 7},
	} {
		step.do()
		_, err := k.Refresh(t.Context())
		status, jsonErr := json.Marshal(k.Status())
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		failed := 0
		for _, s := range k.Status() {
			if s.Error != "" {
				failed++
			}
		}
		if failed != step.failed {
			t.Errorf("%s: got %d failed items, want %d: %v", step.what, failed, step.failed, err)
		}
		for where, text := range map[string]string{
			"error":         fmt.Sprintf("%v %+v %#v", err, err, err),
			"status":        fmt.Sprintf("%v %+v %#v %s", k.Status(), k.Status(), k.Status(), status),
			"log":           log.String(),
			"values":        fmt.Sprintf("%v %+v %#v", k.Values(), k.Values(), k.Values()),
			"keeper itself": fmt.Sprintf("%v %+v %#v", k, k, k),
		} {
			mustHide(t, step.what+" "+where, text)
		}
	}
}
