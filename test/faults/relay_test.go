package faults

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
)

// relay passes bytes between the agent and its engine until it is cut or frozen.
type relay struct {
	t        *testing.T
	path, to string // sockets

	mu       sync.Mutex
	state    relayState
	thawed   *sync.Cond // a change of the state
	listener net.Listener
	conns    map[net.Conn]bool
	ended    bool
	copying  sync.WaitGroup
}

type relayState int

const (
	passing relayState = iota
	frozen             // connections are made and stay silent, as with an engine that was stopped
	gone               // connections are refused and those that were are broken, as with an engine that was killed
)

func newRelay(t *testing.T, path, to string) *relay {
	t.Helper()
	r := &relay{t: t, path: path, to: to, state: gone, conns: make(map[net.Conn]bool)}
	r.thawed = sync.NewCond(&r.mu)
	t.Cleanup(func() {
		r.set(gone)
		r.mu.Lock()
		r.ended = true
		r.thawed.Broadcast()
		r.mu.Unlock()
		r.copying.Wait()
	})
	r.set(passing)
	return r
}

// set changes what becomes of bytes and connections, from this moment on.
func (r *relay) set(state relayState) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case state == gone && r.listener != nil:
		_ = r.listener.Close()
		r.listener = nil
		for conn := range r.conns {
			_ = conn.Close()
		}
	case state != gone && r.listener == nil:
		if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			r.t.Fatal(err)
		}
		listener, err := net.Listen("unix", r.path)
		if err != nil {
			r.t.Fatal(err)
		}
		listener.(*net.UnixListener).SetUnlinkOnClose(false) // an engine that was killed leaves its socket's file
		r.listener = listener
		r.copying.Go(func() { r.accept(listener) })
	}
	r.state = state
	r.thawed.Broadcast()
}

func (r *relay) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		r.copying.Go(func() {
			engine, err := net.Dial("unix", r.to)
			if err != nil {
				_ = client.Close()
				return
			}
			if !r.keep(client, engine) {
				return
			}
			var up sync.WaitGroup
			up.Go(func() { r.pass(engine, client) })
			r.pass(client, engine)
			up.Wait()
			r.drop(client, engine)
		})
	}
}

func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range conns {
		if r.state == gone {
			_ = conn.Close()
			continue
		}
		r.conns[conn] = true
	}
	return r.state != gone
}

func (r *relay) drop(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
		delete(r.conns, conn)
	}
}

// pass copies one way, and tells the other end of the end: a whole close where the other way is of no use any more.
func (r *relay) pass(to, from net.Conn) {
	_, err := io.Copy(thawing{to, r}, from)
	if err != nil {
		_ = from.Close()
		_ = to.Close()
		return
	}
	_ = to.(*net.UnixConn).CloseWrite()
}

// thawing is a writer that waits while the relay is frozen.
type thawing struct {
	net.Conn
	r *relay
}

func (w thawing) Write(p []byte) (int, error) {
	w.r.mu.Lock()
	for w.r.state == frozen && !w.r.ended {
		w.r.thawed.Wait()
	}
	w.r.mu.Unlock()
	return w.Conn.Write(p)
}
