package process

import (
	"context"
	"net/http"
	"time"
)

// pollEvery is how exactly an answer is timed: a hundredth of the fastest boot.
const pollEvery = 10 * time.Millisecond

// Asker makes a connection for each request, as a load balancer's first probe does: one that was kept could belong to a
// container that is gone.
var Asker = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}

// Poll asks url until it answers 200, and says how long after start that was.
func Poll(ctx context.Context, url string, start time.Time) (time.Duration, error) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if answers(ctx, url) {
			return time.Since(start), nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func answers(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := Asker.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}
