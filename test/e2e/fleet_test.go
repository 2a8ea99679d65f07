//go:build fleet

package e2e

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

// The flags of `make drain-e2e`.
var (
	replacements = flag.Int("replacements", 10, "how many nodes are replaced")
	requests     = flag.Int("requests", 100_000, "how many requests are made at least")
	rate         = flag.Int("rate", 300, "how many of them a second")
)

// jobEvery is how often a customer asks for a report. Two nodes work on eight at once, one on four, and a report takes 3 s
// on average: a node that leaves has work in hand, and the one that stays can do it all.
const jobEvery = time.Second

// clients is how many requests may be under way, beside those of customers. The WMS refuses a request when 20 wait for its ten
// connections to the database already: what this is about is nodes that leave, not nodes that have too much to do.
const clients = 12

// slots are the two places behind the edge, at addresses that outlive the nodes (TEST-NET-2, RFC 5737). They are not on
// 127.0.0.0/8, for which the engine would put a proxy of its own between the edge and the containers.
var slots = []string{"198.51.100.1", "198.51.100.2"}

// fleetNode is one node of the fleet, in its time.
type fleetNode struct {
	*node
	agent   *process
	trigger trigger
	group   *awsfake.Lifecycle // that the instance is in, if it is one
	said    string             // what its services complained of
	worker  string             // the worker's address in the database's network
}

func TestNodesAreReplacedUnderLoadWithoutAFailedRequestOrALostTask(t *testing.T) {
	if os.Getenv(lab.DirectoryVariable) == "" {
		t.Fatal("this gives the machine addresses: run `make drain-e2e`, which does it in a lab")
	}
	store := startStore(t)
	var edgeNodes []lab.EdgeNode
	for i, host := range slots {
		addAddress(t, host)
		edgeNodes = append(edgeNodes, lab.EdgeNode{Name: []string{"left", "right"}[i], API: host + ":8000", Health: "http://" + host + ":9180/health"})
	}
	edge := lab.Edge(t, edgeNodes...)
	fleet := make([]*fleetNode, len(slots))
	for i, host := range slots {
		fleet[i] = bootMember(t, store, host, triggers[i%len(triggers)])
	}
	store.watchJobs(t)
	for _, node := range edgeNodes {
		awaitIn(t, edge, node)
	}
	c := newCustomer(t, edge.URL)
	lots := c.stock()

	began := time.Now()
	load := lab.Load(t, lab.LoadSpec{Base: edge.URL, Rate: *rate, Clients: clients, Targets: browsing(lots)})
	c.begin(lots)
	var done []*replacement
	for i := range *replacements {
		at := i % len(slots)
		next := triggers[(i+len(slots))%len(triggers)]
		r := &replacement{slot: edgeNodes[at].Name, trigger: fleet[at].trigger.name, api: edgeNodes[at].API, worker: fleet[at].worker}
		store.awaitTask(t, r.worker)
		r.began, r.drained = fleet[at].leave()
		came := time.Now()
		fleet[at] = bootMember(t, store, slots[at], next)
		awaitIn(t, edge, edgeNodes[at])
		r.joined = time.Since(came)
		done = append(done, r)
		fmt.Printf("%2d of %d: %s left by %s in %.1f s, its successor was in after %.1f s\n",
			i+1, *replacements, r.slot, r.trigger, r.drained.Seconds(), r.joined.Seconds())
	}
	awaitRequests(t, edge)
	c.end()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answers, err := load.End(ctx)
	if err != nil {
		t.Fatal(err)
	}
	answers = append(answers, c.answers...)
	took := time.Since(began)
	jobs := store.awaitJobs(t)
	for _, m := range fleet {
		m.listen()
	}
	edge.Stop()
	seen, err := edge.Requests()
	if err != nil {
		t.Fatal(err)
	}

	v := verdict{
		wanted: *requests, replacements: done, answers: answers, seen: seen, took: took,
		jobs: jobs, ordered: c.ordered, unacknowledged: store.unacknowledged(t),
	}
	v.print(os.Stdout)
	for _, problem := range v.problems() {
		t.Error(problem)
	}
}

// bootMember makes a new machine with an agent of its own, that will be told to leave by the trigger.
func bootMember(t *testing.T, store *store, host string, by trigger) *fleetNode {
	t.Helper()
	n := newNodeOn(t, "stories/replaced", lab.Engine(t))
	n.write("compose.yaml", wmsFile(t, "compose.yaml"))
	n.address = host + ":9180"
	n.settle()
	n.dropIn("50-fleet.yaml", fmt.Sprintf(`workload: {variables: {DATA_NETWORK: %q, WMS_PORT: "%s:8000"}}
health:
  checks:
    - {name: api, http: {url: "http://%[2]s:8000/livez"}, interval: 1s}
    - {name: store, http: {url: "http://%[2]s:8000/health"}, interval: 1s, scope: shared}
`, store.network, host))
	m := &fleetNode{node: n, trigger: by}
	t.Cleanup(func() {
		if t.Failed() && m.said != "" {
			t.Logf("services of %s:\n%s", n.project, m.said)
		}
	})
	by.prepare(m)
	m.agent = n.boot(by.arguments...)
	m.worker = n.container("worker").NetworkSettings.Networks[store.network].IPAddress.String()
	return m
}

// leave makes the node go and takes the machine away. It returns when its drain began and how long it took.
func (m *fleetNode) leave() (began time.Time, took time.Duration) {
	m.t.Helper()
	m.trigger.pull(m)
	started := m.agent.await("the drain's begin", func(e event) bool { return e.Msg == "drain started" })
	ended := m.agent.await("the drain's end", func(e event) bool {
		return e.Msg == "drain done" || e.Msg == "drain ended with failures"
	})
	if ended.Msg != "drain done" {
		m.t.Errorf("the drain by %s failed: %s", m.trigger.name, ended.line)
	}
	m.trigger.confirm(m)
	m.listen()
	m.checkAllStopped()
	if !m.trigger.ends {
		m.agent.stop()
	}
	m.halt()
	return started.Time, ended.Time.Sub(started.Time)
}

// listen keeps what the services complain of, for the case that something went wrong.
func (m *fleetNode) listen() {
	m.t.Helper()
	for _, service := range []string{"api", "worker"} {
		for line := range strings.Lines(m.logs(service)) {
			if strings.Contains(line, "WARNING") || strings.Contains(line, "ERROR") {
				m.said += line
			}
		}
	}
}

// browsing are the requests of those who look things up and receive goods.
func browsing(lots []string) []lab.LoadTarget {
	var all []lab.LoadTarget
	for _, lot := range lots {
		for range 3 {
			all = append(all, lab.LoadTarget{Method: http.MethodGet, Path: "/lots/" + lot, Want: http.StatusOK})
		}
		all = append(all,
			lab.LoadTarget{Method: http.MethodGet, Path: "/livez", Want: http.StatusOK},
			lab.LoadTarget{Method: http.MethodGet, Path: "/lots/" + lot + "/trace/back", Want: http.StatusOK},
			lab.LoadTarget{Method: http.MethodPost, Path: "/lots/raw", Body: rawLot, Want: http.StatusCreated},
		)
	}
	return all
}

// awaitIn waits until a node takes requests, and the edge sends it some.
func awaitIn(t *testing.T, edge *lab.EdgeServer, node lab.EdgeNode) {
	t.Helper()
	eventually(t, node.Health+" answers 200", func() bool {
		response, err := http.Get(node.Health)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := edge.Await(ctx, node.Name); err != nil {
		t.Fatal(err)
	}
}

// awaitRequests waits until there are as many as were asked for. Where the rate can't be kept, that takes longer; where it
// takes three times as long, the verdict will say how many were missing.
func awaitRequests(t *testing.T, edge *lab.EdgeServer) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Duration(float64(*requests)/float64(*rate)*float64(time.Second)))
	said := false
	for time.Now().Before(deadline) {
		count, err := edge.Count()
		if err != nil {
			t.Fatal(err)
		}
		if count >= *requests {
			return
		}
		if !said {
			fmt.Printf("all replaced after %d requests; going on until there are %d\n", count, *requests)
			said = true
		}
		pause(t, time.Second)
	}
}

func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// addAddress gives the lab an address.
func addAddress(t *testing.T, host string) {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(addresses, func(a net.Addr) bool { return strings.HasPrefix(a.String(), host+"/") }) {
		return
	}
	output(t, nil, lab.Program(t, "ip"), "address", "add", host+"/32", "dev", "lo")
}
