package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"
)

const (
	// edgePoll is how often an edge asks a node whether it takes requests.
	edgePoll = 200 * time.Millisecond
	// edgePatience is how long it waits for the answer. A node on the same network answers in under a millisecond; the
	// rest is for a machine that is busy.
	edgePatience = time.Second
	// edgeMisses is after how many questions in a row without an answer a node is out: HAProxy's default (fall). One answer
	// that comes late says nothing about the node.
	edgeMisses = 3
)

// EdgeNode is one of the nodes behind an [EdgeServer].
type EdgeNode struct {
	Name   string // a word of letters
	API    string // host:port to which requests go
	Health string // URL that answers 200 while the node takes requests
}

// EdgeServer is an on-premises load balancer: nginx, which sends requests to those nodes whose /health says 200, by turns.
// A node is out with its first other answer, and after several questions in a row that it doesn't answer.
// It keeps connections to its clients and to the nodes. It never asks twice: a request that a node doesn't answer is one
// that the client sees fail.
//
// The nginx that everybody can have knows no active health checks. Here a file for each node says that it is in, and nginx
// looks for it with each request. So a change holds from the next request on, and no worker process is replaced: one that is
// told to end closes its idle connections at that moment, on which a client may just be asking.
type EdgeServer struct {
	*Process
	URL string

	dir    string
	log    string
	cancel context.CancelFunc
	polls  sync.WaitGroup
}

// EdgeRequest is one request as nginx saw it.
type EdgeRequest struct {
	Began, Ended time.Time // in milliseconds
	Status       int       // what the client got; 499 if it left first
	Node         string    // the node's API, "" when no node was in
	NodeStatus   string    // what the node answered; "-" for nothing
	Method, Path string
}

var edgeConfig = template.Must(template.New("nginx.conf").Parse(`
daemon off;
user root;  # so that it sees the directory, which is ours alone
worker_processes 1;
pid {{.Dir}}/pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  log_format request '$msec|$request_time|$status|$upstream_addr|$upstream_status|$request_method|$request_uri';
  access_log {{.Dir}}/access.log request;
  client_body_temp_path {{.Dir}}/temp-body;
  proxy_temp_path {{.Dir}}/temp-proxy;
  fastcgi_temp_path {{.Dir}}/temp-fastcgi;
  uwsgi_temp_path {{.Dir}}/temp-uwsgi;
  scgi_temp_path {{.Dir}}/temp-scgi;
  # Clients close their connections themselves.
  keepalive_timeout 1h;
  keepalive_requests 1000000;
{{- range .Pools}}
  upstream {{.Name}} {
{{- range .Nodes}}
    server {{.API}} max_fails=0;
{{- end}}
    keepalive 64;
  }
{{- end}}
  server {
    listen {{.Listen}};
    set $nodes in;
{{- range .Nodes}}
    if (-f {{$.Dir}}/in/{{.Name}}) { set $nodes "${nodes}-{{.Name}}"; }
{{- end}}
    if ($nodes = in) { return 503; }
    location / {
      proxy_pass http://$nodes;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_connect_timeout 5s;
      proxy_read_timeout 60s;
      proxy_next_upstream off;
    }
  }
}
`))

// pool is a set of nodes that are in.
type pool struct {
	Name  string
	Nodes []EdgeNode
}

// pools are all sets of nodes but the empty one, so there shouldn't be many nodes.
func pools(nodes []EdgeNode) []pool {
	all := []pool{{Name: "in"}}
	for _, node := range nodes {
		for _, p := range all[:len(all):len(all)] {
			all = append(all, pool{p.Name + "-" + node.Name, append(p.Nodes[:len(p.Nodes):len(p.Nodes)], node)})
		}
	}
	return all[1:]
}

// StartEdge starts an edge on 127.0.0.1. dir is a directory for it that outlives it. ctx bounds the start only.
func StartEdge(ctx context.Context, dir string, nodes []EdgeNode) (*EdgeServer, error) {
	path, err := systemProgram("nginx")
	if err != nil {
		return nil, err
	}
	address, release, err := holdPort()
	if err != nil {
		return nil, err
	}
	defer release()
	listen := address.String()
	var config bytes.Buffer
	err = edgeConfig.Execute(&config, map[string]any{"Dir": dir, "Listen": listen, "Nodes": nodes, "Pools": pools(nodes)})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := errors.Join(os.WriteFile(file, config.Bytes(), 0o600), os.MkdirAll(filepath.Join(dir, "in"), 0o700)); err != nil {
		return nil, err
	}
	p, err := start("nginx", exec.Command(path, "-p", dir, "-c", file, "-e", "stderr"))
	if err != nil {
		return nil, err
	}
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = p.await(startCtx, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", listen)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	if err != nil {
		p.Stop()
		return nil, err
	}
	e := &EdgeServer{Process: p, URL: "http://" + listen, dir: dir, log: filepath.Join(dir, "access.log")}
	pollCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = stop
	for _, node := range nodes {
		e.polls.Go(func() { follow(pollCtx, node, e.mark(node.Name)) })
	}
	return e, nil
}

// Edge starts an edge that ends with the test. See [StartEdge].
func Edge(t testing.TB, nodes ...EdgeNode) *EdgeServer {
	t.Helper()
	server, err := StartEdge(t.Context(), t.TempDir(), nodes)
	need(t, err)
	t.Cleanup(func() {
		server.Stop()
		if t.Failed() {
			t.Logf("log of nginx:\n%s", server.Log())
		}
	})
	return server
}

// Stop ends the edge; what it saw can still be asked.
func (e *EdgeServer) Stop() {
	e.cancel()
	e.polls.Wait()
	e.Process.Stop()
}

// Await waits until requests go to the node of that name.
func (e *EdgeServer) Await(ctx context.Context, name string) error {
	return e.await(ctx, func(context.Context) error {
		_, err := os.Stat(e.mark(name))
		return err
	})
}

// mark is the file that says that a node is in.
func (e *EdgeServer) mark(name string) string { return filepath.Join(e.dir, "in", name) }

// follow keeps file while the node takes requests.
func follow(ctx context.Context, node EdgeNode, file string) {
	client := &http.Client{Timeout: edgePatience, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(edgePoll)
	defer tick.Stop()
	var s standing
	for {
		status, err := statusOf(ctx, client, node.Health)
		if s.hear(status, err); s.in {
			_ = os.WriteFile(file, nil, 0o600) // where that fails no request comes through, which nobody overlooks
		} else {
			_ = os.Remove(file)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// standing is what a node's answers so far make of it; at first it is out.
type standing struct {
	in     bool
	misses int // questions in a row without an answer
}

// hear takes the status of the next answer, or the error that there was none.
func (s *standing) hear(status int, err error) {
	if err == nil {
		s.in, s.misses = status == http.StatusOK, 0
		return
	}
	s.misses++
	s.in = s.in && s.misses < edgeMisses
}

// Count is how many requests ended so far.
func (e *EdgeServer) Count() (int, error) {
	content, err := os.ReadFile(e.log)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return bytes.Count(content, []byte("\n")), err
}

// Requests are those that ended so far.
func (e *EdgeServer) Requests() ([]EdgeRequest, error) {
	content, err := os.ReadFile(e.log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []EdgeRequest
	for line := range strings.Lines(string(content)) {
		r, err := parseEdgeRequest(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("read nginx's log: %w", err)
		}
		all = append(all, r)
	}
	return all, nil
}

func parseEdgeRequest(line string) (r EdgeRequest, err error) {
	fields := strings.SplitN(line, "|", 7)
	if len(fields) != 7 {
		return r, fmt.Errorf("%q has %d fields instead of 7", line, len(fields))
	}
	ended, err1 := strconv.ParseFloat(fields[0], 64)
	took, err2 := strconv.ParseFloat(fields[1], 64)
	status, err3 := strconv.Atoi(fields[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return r, fmt.Errorf("%q: %w", line, err)
	}
	r = EdgeRequest{Ended: time.UnixMicro(int64(ended * 1e6)), Status: status, Method: fields[5], Path: fields[6]}
	r.Began = r.Ended.Add(-time.Duration(took * float64(time.Second)))
	if fields[3] != "-" {
		r.Node, r.NodeStatus = fields[3], fields[4]
	}
	return r, nil
}
