package workload

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/client"
)

// cuttable passes connections on to the engine until they are cut.
type cuttable struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	cuts  int
}

func newCuttable(t *testing.T, engine string) (c *cuttable, address string) {
	t.Helper()
	c = &cuttable{conns: make(map[net.Conn]bool)}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", strings.TrimPrefix(engine, "unix://"))
			if err != nil {
				t.Error(err)
				_ = in.Close()
				return
			}
			c.mu.Lock()
			c.conns[in], c.conns[out] = true, true
			c.mu.Unlock()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
					_ = pair[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		c.cut()
		wg.Wait()
	})
	return c, "unix://" + socket
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close()
	}
	clear(c.conns)
	c.cuts++
}

func TestWaitGoesOnWhenTheEventStreamEnds(t *testing.T) {
	s, cheerUp := newMoody(t)
	r := s.runner(nil)
	proxy, address := newCuttable(t, string(s.cfg.Engine))
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	r.engine = engine
	err = r.Start(t.Context(), ready, func(state State) {
		if web := state.Services[0]; len(web.Containers) > 0 && !web.Phase.Ready() {
			proxy.cut()
			cheerUp()
		}
	})
	if err != nil {
		t.Error(err)
	}
	if proxy.cuts == 0 {
		t.Error("the stream was never cut: the test shows nothing")
	}
}
