package nodefiles

import (
	"context"
	"encoding/base64"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/test/lab"
)

var roles = []string{"app", "database", "edge"}

// cloudConfig is what these tests look at in user data.
type cloudConfig struct {
	WriteFiles []struct {
		Path        string `yaml:"path"`
		Permissions string `yaml:"permissions"`
		Content     string `yaml:"content"`
		Encoding    string `yaml:"encoding"`
	} `yaml:"write_files"`
}

// written returns the content of a file that a role's user data writes.
func written(t *testing.T, role, path string) string {
	t.Helper()
	for _, f := range userData(t, role).WriteFiles {
		if f.Path == path {
			return f.Content
		}
	}
	t.Fatalf("the user data of %s doesn't write %s", role, path)
	return ""
}

func userData(t *testing.T, role string) cloudConfig {
	t.Helper()
	var c cloudConfig
	if err := yaml.Unmarshal(readFile(t, "cloud-init/"+role+"/user-data"), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.WriteFiles) == 0 {
		t.Fatalf("the user data of %s writes no file", role)
	}
	return c
}

func shellcheck(t *testing.T, script []byte) string {
	t.Helper()
	cmd := exec.Command("shellcheck", "-")
	cmd.Stdin = strings.NewReader(string(script))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	return err.Error() + ": " + string(out)
}

func TestSeedsAreAsCloudInitHasThem(t *testing.T) {
	t.Parallel()
	m := machine(t)
	schema := func(kind, path string) (string, int) {
		stdout, stderr, code := m.Try(t, "cloud-init", "schema", "--schema-type", kind, "--config-file", path)
		return stdout + stderr, code
	}
	for _, role := range roles {
		for file, kind := range map[string]string{"user-data": "cloud-config", "network-config": "network-config"} {
			content := readFile(t, "cloud-init/"+role+"/"+file)
			m.Put(t, "/root/seed", content, 0o644)
			if out, code := schema(kind, "/root/seed"); code != 0 || strings.Contains(out, "eprecated") {
				t.Errorf("%s of %s: %s", file, role, out)
			}
			m.Put(t, "/root/seed", append(content, "\nwrite_filez: []\n"...), 0o644)
			if out, code := schema(kind, "/root/seed"); code == 0 {
				t.Errorf("%s of %s: nothing is found in a file with a mistake: %s", file, role, out)
			}
		}
		text := string(readFile(t, "cloud-init/"+role+"/user-data"))
		for _, secret := range []string{"PRIVATE KEY", "AGE-SECRET-KEY", "passwd:", "chpasswd", "hashed_passwd", "AKIA"} {
			if strings.Contains(strings.ReplaceAll(text, "lock_passwd: true", ""), secret) {
				t.Errorf("user-data of %s has %q, which belongs to no seed", role, secret)
			}
		}
		var identity map[string]string
		if err := yaml.Unmarshal(readFile(t, "cloud-init/"+role+"/meta-data"), &identity); err != nil {
			t.Errorf("meta-data of %s: %v", role, err)
		}
		if identity["instance-id"] == "" || identity["local-hostname"] == "" || len(identity) != 2 {
			t.Errorf("meta-data of %s: got %v, want an instance-id and a local-hostname", role, identity)
		}
		for _, f := range userData(t, role).WriteFiles {
			switch {
			case strings.HasPrefix(f.Content, "#!/bin/sh"):
				if problem := shellcheck(t, []byte(f.Content)); problem != "" {
					t.Errorf("%s of %s: %s", f.Path, role, problem)
				}
			case strings.HasPrefix(f.Path, "/etc/flowagent/firewall.d/"):
				m.Put(t, "/root/site.nft", []byte("include \"/usr/lib/flowagent/firewall.nft\"\n"+f.Content), 0o644)
				m.Run(t, "nft", "--check", "--file", "/root/site.nft")
			}
		}
	}
}

// The node's own reader of its configuration, with the example's as the image has it.
func TestTheAppsDropInIsAConfigurationOfTheAgent(t *testing.T) {
	t.Parallel()
	root, err := lab.ProjectDir()
	if err != nil {
		t.Fatal(err)
	}
	image, err := config.ReadFile(filepath.Join(root, "examples/wms/config.onprem.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	site := config.Layer{Name: "50-site.yaml", Data: []byte(written(t, "app", "/etc/flowagent/config.d/50-site.yaml"))}
	loaded, err := config.Parse(image, site)
	if err != nil {
		t.Fatal(err)
	}
	if got := loaded.Config.Workload.Profiles; len(got) != 1 || got[0] != "production" {
		t.Errorf("profiles: got %v, want production", got)
	}
	if got := loaded.Config.Workload.Variables["WMS_DB_HOST"]; got != "10.20.0.20" {
		t.Errorf("the database: got %q, want the seed's 10.20.0.20", got)
	}
	site.Data = append(site.Data, "drian: {}\n"...)
	if _, err := config.Parse(image, site); err == nil || !strings.Contains(err.Error(), "drian") {
		t.Errorf("with a mistake: got %v, want that it is refused", err)
	}
}

// boot has cloud-init set a machine up by a role's seed, and waits until it is done. The machine has no mirror, so its packages
// are there already, and no network card to give an address to.
func boot(t *testing.T, role string) *lab.MachineServer {
	t.Helper()
	m := machine(t)
	const seed = "/var/lib/cloud/seed/nocloud/"
	const update = "package_update: true\n"
	data := string(readFile(t, "cloud-init/"+role+"/user-data"))
	if role != "app" && !strings.Contains(data, update) {
		t.Fatalf("the user data of %s doesn't have the line %q that has to be taken out here", role, update)
	}
	// The machine's memory is that of a test.
	data = strings.NewReplacer(update, "", "'8GB'", "'32MB'").Replace(data)
	m.Put(t, seed+"user-data", []byte(data), 0o600)
	m.Put(t, seed+"meta-data", readFile(t, "cloud-init/"+role+"/meta-data"), 0o600)
	m.Put(t, "/etc/cloud/cloud.cfg.d/99-test.cfg", []byte("network: {config: disabled}\n"), 0o644)
	m.Reboot(t)
	m.AwaitBooted(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if out, err := m.Command(ctx, "cloud-init", "status", "--wait", "--long").CombinedOutput(); err != nil {
		log, _, _ := m.Try(t, "cat", "/var/log/cloud-init-output.log")
		t.Fatalf("cloud-init: %v\n%s\n%s", err, out, log)
	}
	if got := strings.TrimSpace(m.Run(t, "hostname")); !strings.HasPrefix(got, "flowviz-"+role) {
		t.Errorf("the host's name: got %s, want the seed's", got)
	}
	m.Run(t, "systemctl", "is-active", "flowagent-firewall.service")
	m.Run(t, "sudo", "--user=flowviz", "--", "sudo", "--non-interactive", "true")
	return m
}

func TestTheEdgesSeedMakesAnEdge(t *testing.T) {
	t.Parallel()
	m := boot(t, "edge")
	m.Run(t, "nginx", "-t")
	// Both app nodes are away here, which the edge says by TLS 1.3 and nothing less.
	if got := m.Run(t, "curl", "--silent", "--insecure", "--tlsv1.3", "--output", "/dev/null", "--write-out", "%{http_code}", "https://127.0.0.1/"); got != "502" && got != "504" {
		t.Errorf("over TLS 1.3: got %s, want 502 or 504", got)
	}
	if _, _, code := m.Try(t, "curl", "--silent", "--insecure", "--tls-max", "1.2", "https://127.0.0.1/"); code != 35 {
		t.Errorf("over TLS 1.2: got curl's exit code %d, want 35 for a handshake that failed", code)
	}
	if got := m.Run(t, "curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}", "http://127.0.0.1/x"); got != "308 https://127.0.0.1/x" {
		t.Errorf("without TLS: got %s, want a redirect", got)
	}
	n := withNeighbours(t, m)
	n.reach(t, "a client", "far", "203.0.113.1:443", connected)
	n.reach(t, "SSH from another network", "near", "10.99.0.1:22", unheard) // the seed allows 10.20.0.0/24 only
	// A broken configuration is found by the same words.
	m.Put(t, "/etc/nginx/conf.d/broken.conf", []byte("server { listen 8443 sssl; }\n"), 0o644)
	if _, _, code := m.Try(t, "nginx", "-t"); code == 0 {
		t.Error("nginx -t finds nothing in a broken file")
	}
}

func TestTheDatabasesSeedMakesADatabaseThatPasswordsOpen(t *testing.T) {
	t.Parallel()
	m := boot(t, "database")
	// The first app node's address, and one that no node has, both behind one card.
	for _, command := range []string{
		"ip netns add lan", "ip link add lan type veth peer name eth0 netns lan",
		"ip address add 10.20.0.20/24 dev lan", "ip link set lan up",
		"ip -n lan address add 10.20.0.11/24 dev eth0", "ip -n lan address add 10.20.0.99/24 dev eth0", "ip -n lan link set eth0 up",
	} {
		m.Run(t, "sh", "-c", command)
	}
	n := neighbours{m}
	for _, address := range []string{"10.20.0.20:5432", "10.20.0.20:6379"} {
		n.reach(t, "an app node", "lan", address, connected)
	}
	login := func(password, source string, limit time.Duration) (string, error) {
		cmd := n.from(t.Context(), "lan", "env", "PGPASSWORD="+password, "PGCONNECT_TIMEOUT="+seconds(limit), "psql", "--no-psqlrc", "--tuples-only", "--no-align",
			"host=10.20.0.20 user=wms dbname=wms sslmode=require", "--command", "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
		if source != "" {
			n.Run(t, "ip", "-n", "lan", "route", "replace", "10.20.0.20/32", "dev", "eth0", "src", source)
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	cache := func(password string) string {
		cmd := n.from(t.Context(), "lan", "env", "REDISCLI_AUTH="+password, "valkey-cli", "--no-auth-warning", "-h", "10.20.0.20", "ping")
		out, _ := cmd.CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	if out, err := login("anything", "10.20.0.11", patience); err == nil || !strings.Contains(out, "password authentication failed") {
		t.Errorf("before there is a password: got %q, %v; want none to be right", out, err)
	}
	if got := cache("anything"); !strings.Contains(got, "NOAUTH") && !strings.Contains(got, "WRONGPASS") {
		t.Errorf("Valkey before there is a password: got %q, want none to be right", got)
	}

	const database, queue = `it's-a "password"`, "queue-s3cret-7f3a"
	secrets := "db: {password: '" + strings.ReplaceAll(database, "'", "''") + "'}\ncache: {password: " + queue + "}\n"
	m.Run(t, "age-keygen", "-o", "/root/age.key")
	m.Run(t, "sh", "-c", "echo "+base64.StdEncoding.EncodeToString([]byte(secrets))+" | base64 -d | age --encrypt --identity /root/age.key --output /root/secrets.age")
	m.Run(t, "flowviz-passwords", "--identity", "/root/age.key", "/root/secrets.age")
	if out, err := login(database, "10.20.0.11", patience); err != nil || strings.TrimSpace(out) != "t|TLSv1.3" {
		t.Errorf("with the password: got %q, %v; want a session over TLS 1.3", out, err)
	}
	if out, err := login("another", "10.20.0.11", patience); err == nil || !strings.Contains(out, "password authentication failed") {
		t.Errorf("with a wrong password: got %q, %v", out, err)
	}
	if out, err := login(database, "10.20.0.99", silence); err == nil {
		t.Errorf("from an address that is no app node's: got %q, want no answer", out)
	}
	n.Run(t, "ip", "-n", "lan", "route", "replace", "10.20.0.20/32", "dev", "eth0", "src", "10.20.0.11")
	if got := cache(queue); got != "PONG" {
		t.Errorf("Valkey with the password: got %q, want PONG", got)
	}
	if got := cache("a wrong one"); strings.Contains(got, "PONG") {
		t.Errorf("Valkey with a wrong password: got %q", got)
	}
	// Neither of them is anywhere but in the encrypted file.
	for _, secret := range []string{database, queue} {
		eventually(t, "a search that no vanishing file disturbs", func() bool {
			out, problems, code := m.Try(t, "grep", "--recursive", "--files-with-matches", "--binary-files=text", "--fixed-strings", "--", secret, "/etc", "/var/lib", "/var/log", "/root", "/tmp", "/run/log")
			switch {
			case out != "":
				t.Errorf("a password is on the disk: %s", out)
				return true
			case code == 2 && onlyVanished(problems):
				return false // the servers write, rename and remove files meanwhile
			case code != 1:
				t.Fatalf("the search for a password: got exit code %d, want 1: %s", code, problems)
			}
			return true
		})
	}

	m.Put(t, "/root/broken.age", []byte("no age file\n"), 0o600)
	if _, stderr, code := m.Try(t, "flowviz-passwords", "--identity", "/root/age.key", "/root/broken.age"); code != 1 || !strings.Contains(stderr, "could not be decrypted with /root/age.key") {
		t.Errorf("with a broken file: got code %d and %s", code, stderr)
	}
	m.Run(t, "sh", "-c", "echo 'db: {password: s3cret-"+queue+"}' | age --encrypt --identity /root/age.key --output /root/half.age")
	if _, stderr, code := m.Try(t, "flowviz-passwords", "--identity", "/root/age.key", "/root/half.age"); code != 1 || !strings.Contains(stderr, "has to hold") || strings.Contains(stderr, queue) {
		t.Errorf("with half of the secrets: got code %d and %s", code, stderr)
	}
}

// onlyVanished tells whether grep complains, in C's words, of nothing but files that were listed and gone when it opened them.
func onlyVanished(problems string) bool {
	for line := range strings.Lines(problems) {
		if !strings.HasSuffix(line, ": No such file or directory\n") {
			return false
		}
	}
	return problems != ""
}

func TestTheAppsSeedMakesANodeThatSaysWhatItLacks(t *testing.T) {
	t.Parallel()
	m := boot(t, "app")
	if got := strings.TrimSpace(m.Run(t, "stat", "--format=%a %U:%G", "/etc/flowagent/config.d/50-site.yaml")); got != "644 root:root" {
		t.Errorf("the drop-in: got %s, want 644 root:root", got)
	}
	if out := m.Run(t, "id", "--name", "--groups", "flowviz"); !strings.Contains(out, "flowagent") {
		t.Errorf("the groups of flowviz: got %s, want flowagent among them", out)
	}
	if out := m.Run(t, "nft", "list", "chain", "inet", "flowagent", "published"); !strings.Contains(out, "ip saddr 10.20.0.10") {
		t.Errorf("the packet filter: got %s, want the edge's address", out)
	}
	// The image's own configuration is what a test machine lacks; a real one would lack the key.
	eventually(t, "the agent's words on what is missing", func() bool {
		return strings.Contains(m.Run(t, "journalctl", "--no-pager", "--output=cat", "--unit=flowagent.service"), "config.yaml")
	})
}
