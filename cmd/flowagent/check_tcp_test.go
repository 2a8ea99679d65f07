package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/test/lab"
)

// asked is what one check command did.
type asked struct {
	code   int
	stdout string
	err    string
}

// runCheck runs one check command as execute does.
func runCheck(t *testing.T, output string, make func(*globals) *cobra.Command, args ...string) asked {
	t.Helper()
	var stdout bytes.Buffer
	cmd := make(&globals{output: output})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	cmd.SetArgs(args)
	cmd.SetOut(&stdout)
	cmd.SetErr(&stdout)
	err := cmd.ExecuteContext(t.Context())
	result := asked{stdout: stdout.String()}
	var coded *exitError
	switch {
	case errors.As(err, &coded):
		result.code = coded.code
		if coded.err != nil {
			result.err = err.Error()
		}
	case err != nil:
		result.code, result.err = exitFailed, err.Error()
	}
	return result
}

func wantCheck(t *testing.T, got asked, code int, stdout, err string) {
	t.Helper()
	if got.code != code || !strings.Contains(got.stdout, stdout) || !strings.Contains(got.err, err) || (stdout == "") != (got.stdout == "") {
		t.Errorf("got %+v, want code %d with %q and %q", got, code, stdout, err)
	}
}

// replying is a TCP server that answers whatever is said first, and closes the connection.
func replying(t *testing.T, answer string) string {
	t.Helper()
	port := lab.Peer(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1024))
		_, _ = io.WriteString(conn, answer)
	})
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func fileWith(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckTCP_PrintsOneLineAndAnExitCode(t *testing.T) {
	address := replying(t, "220 mail\r\n")
	wantCheck(t, runCheck(t, "table", newCheckTCPCommand, address), exitDone, address+" - pass: accepts connections\n", "")
	wantCheck(t, runCheck(t, "table", newCheckTCPCommand, address, "--send", "HELO", "--expect", "220"), exitDone, " - pass: answers as expected\n", "")
	wantCheck(t, runCheck(t, "table", newCheckTCPCommand, "127.0.0.1:1"), exitFailed, "127.0.0.1:1 - fail: cannot connect: connection refused\n", "")
	wantCheck(t, runCheck(t, "table", newCheckTCPCommand, address, "--tls"), exitFailed, " - fail: TLS: the server does not speak TLS there\n", "")

	var decoded map[string]string
	if err := json.Unmarshal([]byte(runCheck(t, "json", newCheckTCPCommand, "127.0.0.1:1").stdout), &decoded); err != nil {
		t.Fatal(err)
	}
	if decoded["status"] != "fail" || decoded["target"] != "127.0.0.1:1" || decoded["output"] != "cannot connect: connection refused" {
		t.Errorf("got %v, want a failed check of 127.0.0.1:1", decoded)
	}
}

func TestCheckCommands_AWrongCommandLineIsToldApartFromAFailure(t *testing.T) {
	existing := fileWith(t, "hunter2\n")
	for name, test := range map[string]struct {
		make func(*globals) *cobra.Command
		args []string
		want string
	}{
		"tcp without address":         {newCheckTCPCommand, nil, "takes one address"},
		"tcp with two":                {newCheckTCPCommand, []string{"a:1", "b:2"}, "takes one address"},
		"tcp without port":            {newCheckTCPCommand, []string{"host"}, `"host" is not an address: write host:port`},
		"tcp without time":            {newCheckTCPCommand, []string{"a:1", "--timeout", "0s"}, "leaves no time"},
		"tcp with half a certificate": {newCheckTCPCommand, []string{"a:1", "--cert", "x"}, "--cert and --key belong together"},
		"tls with a negative number":  {newCheckTLSCommand, []string{"a:1", "--fail-days", "-1"}, "at least"},
		"http without URL":            {newCheckHTTPCommand, nil, "takes one URL"},
		"http with another scheme":    {newCheckHTTPCommand, []string{"ftp://hunter2"}, "not an http or https URL"},
		"http with credentials":       {newCheckHTTPCommand, []string{"http://user:hunter2@host"}, "the URL holds credentials"},
		"http with a bad pattern":     {newCheckHTTPCommand, []string{"http://host", "--match", "("}, "--match: "},
		"http with a bad header":      {newCheckHTTPCommand, []string{"http://host", "--header", "hunter2"}, `must be "Name: value"`},
		"http with half a secret":     {newCheckHTTPCommand, []string{"http://host", "--secret-header", "X-Key="}, "must be Name=FILE"},
		"http with a bad code":        {newCheckHTTPCommand, []string{"http://host", "--status", "ok"}, "--status"},
		"redis without address":       {newCheckRedisCommand, nil, "needs an address"},
		"redis without port":          {newCheckRedisCommand, []string{"host"}, "is not an address"},
		"redis with several":          {newCheckRedisCommand, []string{"a:1", "b:1"}, "need --sentinel or --cluster"},
		"redis with both":             {newCheckRedisCommand, []string{"a:1", "--sentinel", "x", "--cluster"}, "exclude each other"},
		"redis with a user alone":     {newCheckRedisCommand, []string{"a:1", "--user", "x"}, "a user needs a password"},
		"redis without the file":      {newCheckRedisCommand, []string{"a:1", "--password-file", "/nonexistent"}, "--password-file: open /nonexistent"},
		"redis for no Sentinel":       {newCheckRedisCommand, []string{"a:1", "--sentinel-password-file", existing}, "needs --sentinel"},
	} {
		t.Run(name, func(t *testing.T) {
			got := runCheck(t, "table", test.make, test.args...)
			wantCheck(t, got, exitUsage, "", test.want)
			if strings.Contains(got.err, "hunter2") {
				t.Errorf("the error repeats a secret: %s", got.err)
			}
		})
	}
}

func TestCheckHTTP_ShowsNothingSecret(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hunter2" || r.Header.Get("X-Probe") != "1" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, "hunter2")
	}))
	t.Cleanup(server.Close)
	url := server.URL + "/health?token=hunter2"
	headers := []string{"--header", "X-Probe: 1", "--secret-header", "Authorization=" + fileWith(t, "Bearer hunter2\n")}
	for _, test := range []struct {
		args   []string
		code   int
		stdout string
	}{
		{append(headers, url), exitDone, "/health - pass: answers 200 OK\n"},
		{append(headers, url, "--match", "hunter[0-9]"), exitDone, "/health - pass: answers 200 OK and what is expected\n"},
		{[]string{url}, exitFailed, "/health - fail: answers 401 Unauthorized\n"},
		{[]string{url, "--status", "401,403"}, exitDone, "/health - pass: answers 401 Unauthorized\n"},
	} {
		got := runCheck(t, "table", newCheckHTTPCommand, test.args...)
		wantCheck(t, got, test.code, server.URL+test.stdout, "")
		if strings.Contains(got.stdout, "hunter2") {
			t.Errorf("it shows a secret: %s", got.stdout)
		}
	}
}

func TestCheckTLS_NamesWhatIsWrong(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "https://")
	wantCheck(t, runCheck(t, "table", newCheckTLSCommand, address), exitFailed, "an authority that is not trusted here", "")
	wantCheck(t, runCheck(t, "table", newCheckTLSCommand, replying(t, "HTTP/1.1 400\r\n\r\n")), exitFailed, "does not speak TLS", "")
}

func TestCheckRedis_AnswersDecide(t *testing.T) {
	address := replying(t, "+PONG\r\n")
	wantCheck(t, runCheck(t, "table", newCheckRedisCommand, address), exitDone, address+" - pass: answers PING\n", "")
	address = replying(t, "-LOADING Redis is loading the dataset in memory\r\n")
	wantCheck(t, runCheck(t, "table", newCheckRedisCommand, address), exitFailed, address+" - fail: the server is loading its data set\n", "")
	address = replying(t, "-WRONGPASS hunter2\r\n")
	got := runCheck(t, "table", newCheckRedisCommand, address, "--user", "app", "--password-file", fileWith(t, "hunter2\n"))
	wantCheck(t, got, exitFailed, " - fail: the server refuses the login: the user or the password is wrong", "")
	if strings.Contains(got.stdout, "hunter2") {
		t.Errorf("it shows a secret: %s", got.stdout)
	}
	got = runCheck(t, "table", newCheckRedisCommand, "127.0.0.1:1", "/nonexistent/socket", "--sentinel", "stores")
	wantCheck(t, got, exitFailed, "127.0.0.1:1,/nonexistent/socket - fail: 127.0.0.1:1: Sentinel: cannot connect: connection refused; /nonexistent/socket: Sentinel: ", "")
}
