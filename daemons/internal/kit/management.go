package kit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"shoal/daemons/internal/conf"
)

// Bounds of the two small HTTP servers.
const (
	httpHeaderTimeout = 5 * time.Second
	httpReadTimeout   = 30 * time.Second
	httpWriteTimeout  = 60 * time.Second
	httpIdleTimeout   = 2 * time.Minute
	httpMaxHeader     = 64 << 10
	httpMaxBody       = 1 << 20
	httpConnections   = 256
	readyTimeout      = 5 * time.Second
)

// newHTTPServer is a bounded HTTP server whose complaints about clients go to the log.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: httpHeaderTimeout,
		ReadTimeout:       httpReadTimeout,
		WriteTimeout:      httpWriteTimeout,
		IdleTimeout:       httpIdleTimeout,
		MaxHeaderBytes:    httpMaxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// serveHTTP serves on the named, already bound listener until the process ends.
func (p *process) serveHTTP(name, address string, s *http.Server, wrap func(net.Listener) net.Listener) error {
	l, err := p.env.Listen(conf.Listener{Name: name, Address: address, MaxConnections: httpConnections})
	if err != nil {
		return err
	}
	if wrap != nil {
		l = wrap(l)
	}
	p.env.OnClose(name+" server", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			return s.Close()
		}
		return nil
	})
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("server ended", "listener", name, "error", err)
		}
	}()
	return nil
}

// serveManagement starts the management address:
//
//	GET /healthz   200 while the process moves
//	GET /readyz    200 when the role can serve; 503 and the reason while it starts, lacks something, or drains
//	GET /metrics   Prometheus
//	    /debug/pprof/   only when the address is a loopback address
func (p *process) serveManagement(address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := p.ready(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.env.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelError), MaxRequestsInFlight: 8, Timeout: 30 * time.Second,
	}))
	if bound, ok := p.env.prebound["management"]; ok && isLoopback(bound) {
		profile := func(h http.HandlerFunc) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				// A profile takes as long as its client asks.
				_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
				h(w, r)
			}
		}
		mux.HandleFunc("/debug/pprof/", profile(pprof.Index))
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", profile(pprof.Profile))
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", profile(pprof.Trace))
	}
	return p.serveHTTP("management", address, newHTTPServer(mux, p.log), nil)
}

// ready is nil when traffic should come here.
func (p *process) ready(ctx context.Context) error {
	s := p.running()
	switch {
	case p.draining.Load():
		return errors.New("draining")
	case s == nil:
		return errors.New("starting")
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return within(ctx, func() error { return s.Ready(ctx) })
}
