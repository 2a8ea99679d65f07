// Package awsfake stands between AWS clients and moto, or takes moto's place for calls that moto lacks.
//
// What enters are requests of the AWS SDKs; each goes to a handler registered for its action, else to moto. Tests tell
// single actions to be denied, throttled, slow, lost or half answered, and ask how often each was called. It checks no
// signature. A Server keeps no state but counters: state belongs to moto and to the handlers, such as [Lifecycle].
package awsfake

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// Always injects a fault into every call.
const Always = -1

// bodyLimit bounds a request's body, in bytes; the largest of the actions here is a binary secret of 64 KiB.
const bodyLimit = 8 << 20

// Server is an http.Handler for an SDK's BaseEndpoint. Its methods may be called while it serves.
type Server struct {
	upstream http.Handler

	mu       sync.Mutex
	handlers map[string]http.Handler
	faults   map[string][]*injected
	calls    map[string]int
}

// injected is a fault and how many calls it is still meant for; Always doesn't count down.
type injected struct {
	fault Fault
	left  int
}

// New returns a server in front of upstream, the URL of a moto_server. With "" only registered handlers answer.
func New(upstream string) (*Server, error) {
	s := &Server{
		handlers: make(map[string]http.Handler),
		faults:   make(map[string][]*injected),
		calls:    make(map[string]int),
	}
	if upstream == "" {
		s.upstream = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			WriteError(w, r, http.StatusBadRequest, "UnknownOperationException", fmt.Sprintf("nothing answers to %q here", Action(r)))
		})
		return s, nil
	}
	target, err := url.Parse(upstream)
	if err != nil || target.Host == "" {
		return nil, fmt.Errorf("awsfake: upstream %q is not a URL", upstream)
	}
	s.upstream = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			WriteError(w, r, http.StatusBadGateway, "BadGateway", err.Error())
		},
	}
	return s, nil
}

// Handle answers an action, such as CompleteLifecycleAction, instead of moto. The handler can read the whole body, also
// by ParseForm, and refuses with WriteError.
func (s *Server) Handle(action string, h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[action] = h
}

// Inject applies a fault to the next so many calls of an action, or to Always. Faults of one action are used up in the
// order in which they were injected.
func (s *Server) Inject(action string, times int, fault Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[action] = append(s.faults[action], &injected{fault, times})
}

// Heal removes what was injected into an action.
func (s *Server) Heal(action string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.faults, action)
}

// Calls tells how often an action was called, failed calls and the SDK's own retries included.
func (s *Server) Calls(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[action]
}

// ServeHTTP counts the call, applies its fault and hands it on.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		http.Error(w, "awsfake: "+err.Error(), http.StatusBadRequest)
		return
	}
	// From here on, Action, faults and handlers each see the whole body, and net/http notices a client that hangs up.
	r.Body = io.NopCloser(bytes.NewReader(body))
	handler, fault := s.enter(Action(r))
	if fault != nil {
		handler = fault(handler)
	}
	handler.ServeHTTP(w, r)
}

// enter books a call and returns who answers it and what goes wrong, nil for nothing.
func (s *Server) enter(action string) (http.Handler, Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[action]++
	handler := s.upstream
	if registered, found := s.handlers[action]; found {
		handler = registered
	}
	for _, f := range s.faults[action] {
		if f.left == 0 {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		return handler, f.fault
	}
	return handler, nil
}
