package hint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
)

// maxPeers bounds the addresses that hints wait for at once, listed or not.
const maxPeers = 4096

// Directory lists the servers of a role (*dirclient.Client does).
type Directory interface {
	Servers(ctx context.Context, role string) ([]dirclient.Server, error)
}

// SenderOptions of NewSender. Server, Directory, TLS and Log are required.
type SenderOptions struct {
	Server    string // this box: hints to its own addresses are not sent
	Directory Directory
	TLS       *tls.Config // shows this server's certificate and accepts roles box and switch (pki: ClientTLS("box", "switch"))
	Settings  *Settings   // nil: the defaults
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Clock     clock.Clock
}

// Sender sends hints to other boxes: one connection and one goroutine per box that there is something to tell.
type Sender struct {
	o       SenderOptions
	set     Settings
	metrics *senderMetrics
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	reports chan item // that wait to be spread

	mu      sync.Mutex
	closed  bool
	peers   map[string]*peer // by address
	running sync.WaitGroup
}

type senderMetrics struct {
	sent      prometheus.Counter
	coalesced prometheus.Counter
	dropped   *prometheus.CounterVec
	peers     prometheus.Gauge
}

// NewSender builds a sender.
func NewSender(o SenderOptions) (*Sender, error) {
	if o.Server == "" || o.Directory == nil || o.TLS == nil || o.Log == nil {
		return nil, errors.New("hint: server name, directory, TLS configuration or log is missing")
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	s := &Sender{o: o, set: settings(o.Settings), peers: map[string]*peer{}}
	s.metrics = &senderMetrics{
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_hint_sent_total", Help: "Hints sent to other boxes.",
		}),
		coalesced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_hint_coalesced_total", Help: "Hints not sent because one for the same mailbox was waiting.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_hint_dropped_total",
			Help: "Hints that could not be sent, by reason (away, full, unlisted, invalid).",
		}, []string{"reason"}),
		peers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_hint_outgoing_connections", Help: "Open connections to other boxes.",
		}),
	}
	if o.Metrics != nil {
		if err := errors.Join(o.Metrics.Register(s.metrics.sent), o.Metrics.Register(s.metrics.coalesced),
			o.Metrics.Register(s.metrics.dropped), o.Metrics.Register(s.metrics.peers)); err != nil {
			return nil, fmt.Errorf("hint: metrics: %w", err)
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.reports = make(chan item, s.set.Queue)
	s.running.Add(1)
	go s.spread()
	return s, nil
}

// Notify sends a hint about ref to the box at addr, which comes from the mailbox and is not believed. It never
// blocks: what cannot be sent is dropped and counted.
func (s *Sender) Notify(addr string, ref mailstore.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify(addr, item{ref: ref})
}

// Tell tells all other servers of a login: see authn.Peers. It never blocks.
func (s *Sender) Tell(user, address string, known bool) {
	it := item{kind: 'f', user: user, addr: address}
	if known {
		it.kind = 'k'
	}
	select {
	case s.reports <- it:
	default:
		s.metrics.dropped.WithLabelValues("full").Inc()
	}
}

// spread hands reports to the peers. Who they are is asked of the directory's client, which remembers.
func (s *Sender) spread() {
	defer s.running.Done()
	for {
		var it item
		select {
		case <-s.ctx.Done():
			return
		case it = <-s.reports:
		}
		for _, role := range roles {
			servers, err := s.o.Directory.Servers(s.ctx, role)
			if err != nil {
				s.metrics.dropped.WithLabelValues("away").Inc()
				continue
			}
			s.mu.Lock()
			for _, v := range servers {
				if v.Name != s.o.Server {
					for _, addr := range v.Addresses[dirclient.ServiceHint] {
						s.notify(addr, it)
					}
				}
			}
			s.mu.Unlock()
		}
	}
}

// notify is called with the mutex held.
func (s *Sender) notify(addr string, ref item) {
	if s.closed {
		return
	}
	p := s.peers[addr]
	if p == nil {
		if len(s.peers) >= maxPeers || len(addr) > 300 {
			s.metrics.dropped.WithLabelValues("full").Inc()
			return
		}
		p = newPeer(s, addr)
		s.peers[addr] = p
		s.running.Add(1)
		go func() {
			defer s.running.Done()
			p.run()
		}()
	}
	switch p.add(ref) {
	case addedTwice:
		s.metrics.coalesced.Inc()
	case notAdded:
		s.metrics.dropped.WithLabelValues("full").Inc()
	}
}

// Close drops what waits and closes the connections.
func (s *Sender) Close() error {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// roles are those of the servers that take part.
var roles = []string{pki.RoleBox, pki.RoleSwitch}

// listed returns which server the directory lists addr for. errUnlisted: none; another error: it cannot be said.
func (s *Sender) listed(ctx context.Context, addr string) (role, name string, err error) {
	for _, role := range roles {
		servers, err := s.o.Directory.Servers(ctx, role)
		if err != nil {
			return "", "", err
		}
		for _, b := range servers {
			if slices.Contains(b.Addresses[dirclient.ServiceHint], addr) {
				return role, b.Name, nil
			}
		}
	}
	return "", "", errUnlisted
}

var errUnlisted = errors.New("the directory lists this address for no box or switch")
