package main

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// statePath is where EC2 says which state Auto Scaling wants the instance in.
const statePath = "/latest/meta-data/autoscaling/target-lifecycle-state"

// metadata is instance metadata whose target lifecycle state changes at a moment that is known: the mock behind it takes
// its time to notice.
type metadata struct {
	mock      http.Handler
	state     atomic.Value // string
	questions atomic.Int64 // all requests
}

func newMetadata(mock string) (*metadata, error) {
	target, err := url.Parse(mock)
	if err != nil {
		return nil, err
	}
	m := &metadata{mock: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}}
	m.state.Store("InService")
	return m, nil
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.questions.Add(1)
	switch {
	case r.URL.Path == statePath:
		_, _ = w.Write([]byte(m.state.Load().(string))) // whoever hung up needs no answer
	case isAnnouncement(r.URL.Path): // the mock announces everything by itself
		http.NotFound(w, r)
	default:
		m.mock.ServeHTTP(w, r)
	}
}

func isAnnouncement(path string) bool {
	switch path {
	case "/latest/meta-data/spot/instance-action", "/latest/meta-data/events/recommendations/rebalance", "/latest/meta-data/events/maintenance/scheduled":
		return true
	}
	return false
}

// serve answers on a free port of loopback until the program ends, and returns the URL.
func serve(handler http.Handler) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = (&http.Server{Handler: handler}).Serve(listener) }()
	return "http://" + listener.Addr().String(), nil
}
