//go:build fleet

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/flowviz/flowagent/test/lab"
)

const rawLot = `{"product": "oat flour", "quantity": 500, "supplier": "Muehle Nord", "supplier_lot": "MN-7781"}`

// customer asks for reports and waits for each with a request that takes as long as the job does. Like the load, it keeps its
// connections and doesn't try again.
type customer struct {
	t      *testing.T
	base   string
	client *http.Client
	stop   context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	answers []lab.LoadAnswer
	ordered int // reports that the WMS took the order for
}

func newCustomer(t *testing.T, base string) *customer {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &customer{t: t, base: base, client: &http.Client{Transport: transport, Timeout: lab.LoadTimeout}}
}

// ask makes one request and reads the answer, unless it failed.
func (c *customer) ask(method, path, body string, want int, answer any) bool {
	a := lab.LoadAnswer{Method: method, URL: c.base + path, Began: time.Now()}
	err := func() error {
		request, err := http.NewRequest(method, a.URL, bytes.NewReader([]byte(body)))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := c.client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		content, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		if a.Code = response.StatusCode; a.Code != want {
			return fmt.Errorf("%s: %.200s", response.Status, content)
		}
		return json.Unmarshal(content, answer)
	}()
	a.Latency = time.Since(a.Began)
	if err != nil {
		a.Failed, a.Error = true, err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, a)
	return err == nil
}

// stock fills the warehouse and returns the lots' codes.
func (c *customer) stock() []string {
	c.t.Helper()
	var lots []string
	for range 5 {
		var raw, made struct{ Code string }
		ok := c.ask(http.MethodPost, "/lots/raw", rawLot, http.StatusCreated, &raw) &&
			c.ask(http.MethodPost, "/lots/production", fmt.Sprintf(`{"product": "granola base", "quantity": 90, "inputs": [{"lot": %q, "quantity": 100}]}`, raw.Code), http.StatusCreated, &made)
		if !ok {
			c.t.Fatalf("the warehouse can't be filled: %+v", c.answers)
		}
		lots = append(lots, raw.Code, made.Code)
	}
	return lots
}

// begin orders a report every jobEvery.
func (c *customer) begin(lots []string) {
	ctx, stop := context.WithCancel(c.t.Context())
	c.stop = stop
	c.all.Go(func() {
		tick := time.NewTicker(jobEvery)
		defer tick.Stop()
		for i := 0; ; i++ {
			c.all.Go(func() { c.order(lots[i%len(lots)]) })
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// order asks for a report and waits until it is there.
func (c *customer) order(lot string) {
	var job struct{ ID, State string }
	if !c.ask(http.MethodPost, "/lots/"+lot+"/reports", "", http.StatusAccepted, &job) {
		return
	}
	c.mu.Lock()
	c.ordered++
	c.mu.Unlock()
	deadline := time.Now().Add(patience)
	for job.State != "done" && job.State != "failed" && time.Now().Before(deadline) {
		if !c.ask(http.MethodGet, "/jobs/"+job.ID+"?wait=15", "", http.StatusOK, &job) {
			return
		}
	}
}

// end waits for the reports that were ordered.
func (c *customer) end() {
	c.stop()
	c.all.Wait()
}
