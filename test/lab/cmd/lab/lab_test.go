package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/lab"
)

// asLab makes this test program behave as the lab command, which executes itself for its inner parts.
const asLab = "FLOWAGENT_TEST_AS_LAB"

func TestMain(m *testing.M) {
	if os.Getenv(asLab) != "" {
		main()
	}
	os.Exit(m.Run())
}

// labCommand prepares `lab ARGUMENTS`, with errors going to the test's log.
func labCommand(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, arguments...)
	cmd.Env = append(os.Environ(), asLab+"=yes")
	cmd.Stderr = t.Output()
	return cmd
}

// needLab asks for what a lab is made of. Labs of their own work inside the lab of `make test`, too.
func needLab(t *testing.T) {
	t.Helper()
	lab.Root(t)
	lab.Program(t, "dockerd")
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args[1:], err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestLabHasNoNetworkAndAnEngineOfItsOwn(t *testing.T) {
	needLab(t)
	const script = `ls /sys/fs/cgroup >/dev/null; cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' ' | sort | tr '\n' ' '; echo $FLOWAGENT_TEST_ENGINE $AWS_PROFILE`
	cmd := labCommand(t, "run", "--", "sh", "-c", script)
	cmd.Env = append(cmd.Env, "AWS_PROFILE=somebody", "HTTPS_PROXY=http://proxy.invalid")
	if got, want := output(t, cmd), "docker0 lo unix:///run/docker.sock"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLabEndsWithTheCommandsCode(t *testing.T) {
	needLab(t)
	cmd := labCommand(t, "run", "--", "sh", "-c", "exit 7")
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("got exit code %d, want 7", got)
	}
}

func TestLabPassesSignalsToTheWholeCommand(t *testing.T) {
	needLab(t)
	cmd := labCommand(t, "run", "--", "sh", "-c", `trap 'echo shell; wait; exit 9' TERM; sh -c 'trap "echo child; exit" TERM; echo up; while :; do sleep 0.05; done' & wait`)
	lines := startLines(t, cmd)
	lines.expect(t, "up")
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{lines.next(t): true, lines.next(t): true}
	if !got["shell"] || !got["child"] {
		t.Errorf("got %v, want a line of the shell and one of its child", got)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("got exit code %d, want 9", code)
	}
}

func TestNothingOutlivesALabThatIsKilled(t *testing.T) {
	needLab(t)
	// A pipe's reader sees its end when the last process that could write is gone.
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	cmd := labCommand(t, "run", "--", "sh", "-c", "setsid sleep 600 & echo up; wait")
	cmd.Stdout = writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	lines := bufio.NewReader(reader)
	if line, err := lines.ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("got %q and error %v, want up", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("got %q and error %v, want the end", rest, err)
	}
	lab.RemoveCgroups(fmt.Sprintf("/flowagent-lab-%d", cmd.Process.Pid)) // which a killed lab can't
}

func TestLabStartsWithAnEmptyDisk(t *testing.T) {
	needLab(t)
	const script = `mkdir "$FLOWAGENT_LAB_DISK/left" && ls "$FLOWAGENT_LAB_DISK"`
	for range 2 {
		if got, want := output(t, labCommand(t, "run", "--", "sh", "-c", script)), "left"; got != want {
			t.Errorf("got %q on the disk, want %q, the lab's own, alone", got, want)
		}
	}
}

func TestPublishedPortLeadsIntoTheLab(t *testing.T) {
	needLab(t)
	lab.Program(t, "python3")
	_, port, err := net.SplitHostPort(lab.DeafAddress(t)) // until the lab listens there
	if err != nil {
		t.Fatal(err)
	}
	cmd := labCommand(t, "run", "--publish", port, "--", "python3", "-u", "-c", `
import http.server
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the inside")
server = http.server.HTTPServer(("127.0.0.1", `+port+`), Hello)
print("up")
server.handle_request()
`)
	lines := startLines(t, cmd)
	lines.expect(t, "up")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != "from the inside" {
		t.Errorf("got %q and error %v, want the server's answer", body, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestImageIsCopiedFromTheMachinesEngine(t *testing.T) {
	needLab(t)
	lab.Program(t, "docker")
	engine := lab.Engine(t)
	const ref = "lab/copied:1"
	lab.AppImage(t, ref)
	cmd := labCommand(t, "run", "--image", ref, "--", "docker", "run", "--rm", ref, "id")
	cmd.Env = append(cmd.Env, "DOCKER_HOST="+engine)
	if got, want := output(t, cmd), "0:0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLabStartsWhatItIsAskedFor(t *testing.T) {
	needLab(t)
	for _, name := range []string{"moto_server", "docker-registry", "curl"} {
		lab.Program(t, name)
	}
	lab.MetadataMock(t, "") // for its program, which is needed again inside
	config := filepath.Join(t.TempDir(), "metadata.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	const host = "210987654321.dkr.ecr.eu-central-1.amazonaws.com"
	const script = `
set -e
curl -sS -o /dev/null -w '%{http_code} ' "$AWS_ENDPOINT_URL/moto-api/data.json"
curl -sS -o /dev/null -w '%{http_code} ' "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/"
login=$FLOWAGENT_LAB/registries/` + host + `
curl -sS -o /dev/null -w '%{http_code}' -u "$(cat "$login/username"):$(cat "$login/password")" https://` + host + `/v2/
`
	cmd := labCommand(t, "run", "--moto", "--metadata-mock", config, "--registry", host, "--", "sh", "-c", script)
	if got, want := output(t, cmd), "200 401 200"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWrongCommandLinesAreRefused(t *testing.T) {
	for name, arguments := range map[string][]string{
		"nothing":                {},
		"unknown command":        {"walk"},
		"no command to run":      {"run"},
		"unknown flag":           {"run", "--fast", "true"},
		"unknown registry":       {"run", "--registry", "registry.example", "true"},
		"published without port": {"run", "--publish", "[::1", "true"},
		"inner part outside":     {nodeCommand, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := labCommand(t, arguments...)
			_ = cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != exitUsage {
				t.Errorf("got exit code %d, want %d", got, exitUsage)
			}
		})
	}
}

// lineReader reads the output of a running command.
type lineReader struct{ scanner *bufio.Scanner }

func startLines(t *testing.T, cmd *exec.Cmd) lineReader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return lineReader{bufio.NewScanner(out)}
}

func (l lineReader) next(t *testing.T) string {
	t.Helper()
	if !l.scanner.Scan() {
		t.Fatalf("the output ended: %v", l.scanner.Err())
	}
	return l.scanner.Text()
}

func (l lineReader) expect(t *testing.T, want string) {
	t.Helper()
	if got := l.next(t); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}
