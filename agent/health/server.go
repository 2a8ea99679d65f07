package health

import (
	"log/slog"
	"net/http"
	"time"
)

// NewServer wraps the endpoint with limits that keep slow or hostile clients from holding it: on time, on size, and, in
// [crowd], on connections. Whoever sets the server's ConnState takes the last one away.
func NewServer(e *Endpoint, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:   e,
		ConnState: newCrowd(maxConnections).connState,
		// A load balancer sends its few header lines at once; ALB's own probe gives up after 5 s by default.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      5 * time.Second,
		// Longer than the 30 s between two probes of an ALB, so that its connection is kept.
		IdleTimeout: 65 * time.Second,
		// A probe needs a few hundred bytes.
		MaxHeaderBytes: 8 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
