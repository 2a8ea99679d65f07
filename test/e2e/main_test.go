package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// agentBinary is the path of the flowagent under test.
var agentBinary string

// atOnce is how many nodes run at a time, unless -parallel says otherwise. They wait far more than they compute, so
// there are more of them than processors; each may need a network, of which an engine has 31.
const atOnce = "6"

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			return 0, err
		}
	}
	dir, err := os.MkdirTemp("", "e2e-bin-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	root, err := lab.ProjectDir()
	if err != nil {
		return 0, err
	}
	agentBinary = filepath.Join(dir, "flowagent")
	build := exec.Command("go", "build", "-race", "-o", agentBinary, "./cmd/flowagent")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build flowagent: %w\n%s", err, out)
	}
	defer stopMoto()
	return m.Run(), nil
}

// moto serves all nodes: it takes seconds of processor time to start. Nodes are apart by their account.
var (
	motoMu     sync.Mutex
	motoServer *lab.MotoServer
)

func motoURL(t *testing.T) string {
	t.Helper()
	lab.Program(t, "moto_server") // says what to install where it is missing
	motoMu.Lock()
	defer motoMu.Unlock()
	if motoServer == nil {
		// It outlives the test that needs it first.
		server, err := lab.StartMoto(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		motoServer = server
	}
	return motoServer.URL
}

func stopMoto() {
	motoMu.Lock()
	defer motoMu.Unlock()
	if motoServer != nil {
		motoServer.Stop()
	}
}
