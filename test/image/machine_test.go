package main

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestTheFirstAnswerOfAMachineDecidesWhetherItIsHealthy(t *testing.T) {
	const none = 0
	for name, c := range map[string]struct {
		answers []int
		want    string // in the error; "" for none
	}{
		"healthy":                    {[]int{200}, ""},
		"healthy, after no answer":   {[]int{none, 200}, ""},
		"unhealthy":                  {[]int{503, 200}, "/health answers 503"},
		"unhealthy, after no answer": {[]int{none, 503, 200}, "/health answers 503"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				status := c.answers[asked]
				asked++
				if status == none {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(status)
			}))
			defer server.Close()
			address := netip.MustParseAddrPort(strings.TrimPrefix(server.URL, "http://"))
			m := &machine{name: "m", ports: map[int]int{healthPort: int(address.Port())}}
			err := m.checkHealthy(t.Context(), healthPort)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
