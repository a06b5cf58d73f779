package hint

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
	"shoal/tests/ports"
)

// creds issues identities of one CA.
type creds struct {
	t   *testing.T
	ca  *pki.CA
	dir string
}

func newCreds(t *testing.T) *creds {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{})
	must(t, err)
	c := &creds{t: t, ca: ca, dir: t.TempDir()}
	must(t, ca.Save(filepath.Join(c.dir, "ca.crt"), filepath.Join(c.dir, "ca.key")))
	return c
}

func (c *creds) of(role, name string) *pki.Credentials {
	c.t.Helper()
	pair, err := c.ca.Issue(pki.Request{Role: role, Name: name})
	must(c.t, err)
	cert, key := filepath.Join(c.dir, role+name+".crt"), filepath.Join(c.dir, role+name+".key")
	must(c.t, pair.Save(cert, key))
	got, err := pki.Load(pki.Files{Cert: cert, Key: key, CA: filepath.Join(c.dir, "ca.crt")})
	must(c.t, err)
	return got
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// store notes the hints that arrive.
type store struct {
	mu   sync.Mutex
	refs []mailstore.Ref
	came chan struct{}
}

func newStore() *store { return &store{came: make(chan struct{}, 100000)} }

func (s *store) Hint(ref mailstore.Ref) {
	s.mu.Lock()
	s.refs = append(s.refs, ref)
	s.mu.Unlock()
	s.came <- struct{}{}
}

func (s *store) all() []mailstore.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refs)
}

// directory lists boxes.
type directory struct {
	mu       sync.Mutex
	boxes    map[string]string // name to hint address
	err      error
	asked    int
	switches map[string]string
}

func (d *directory) Servers(_ context.Context, role string) (list []dirclient.Server, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch role {
	case "box":
		d.asked++
	case "switch":
		for name, addr := range d.switches {
			list = append(list, dirclient.Server{Name: name, Role: role, Addresses: map[string][]string{dirclient.ServiceHint: {addr}}})
		}
		return list, d.err
	default:
		return nil, errors.New("asked for " + role)
	}
	for name, addr := range d.boxes {
		list = append(list, dirclient.Server{Name: name, Role: role, Addresses: map[string][]string{dirclient.ServiceHint: {addr}}})
	}
	return list, d.err
}

// serve runs a hint server for box name.
func serve(t *testing.T, c *pki.Credentials, addr string, st Store, change func(*ServerOptions)) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	must(t, err)
	o := ServerOptions{Store: st, TLS: c.ServerTLS(pki.RoleBox, pki.RoleSwitch), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	if change != nil {
		change(&o)
	}
	s, err := NewServer(o)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		must(t, s.Close())
		must(t, <-done)
	})
	return s, l.Addr().String()
}

func sender(t *testing.T, c *pki.Credentials, d Directory, clk clock.Clock, change func(*Settings)) *Sender {
	t.Helper()
	set := settings(nil)
	if change != nil {
		change(&set)
	}
	s, err := NewSender(SenderOptions{
		Server: c.Name(), Directory: d, TLS: c.ClientTLS(pki.RoleBox, pki.RoleSwitch), Settings: &set, Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(), Clock: clk,
	})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// metric reads a counter or gauge of a server or sender.
func metric(t *testing.T, r prometheus.Registerer, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.(*prometheus.Registry).Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetValue())
			}
			if f.GetName() == "shoal_hint_"+name && slices.Equal(got, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// until waits for a metric to reach a value.
func until(t *testing.T, r prometheus.Registerer, want float64, name string, labels ...string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 20000 {
		if metric(t, r, name, labels...) == want {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s %v is %v, wanted %v", name, labels, metric(t, r, name, labels...), want)
}

func ref(i int) mailstore.Ref {
	return mailstore.Ref{Volume: "vol01", Account: "account1", Mailbox: fmt.Sprintf("box1.1.%d", i)}
}

func TestHintsArrive(t *testing.T) {
	c := newCreds(t)
	st := newStore()
	_, addr := serve(t, c.of("box", "box2"), "127.0.0.1:0", st, nil)
	s := sender(t, c.of("box", "box1"), &directory{boxes: map[string]string{"box2": addr}}, nil, nil)
	start := time.Now()
	for i := range 100 {
		s.Notify(addr, ref(i))
	}
	s.Notify(addr, mailstore.Ref{Volume: "vol01", Account: "account1"})
	for range 101 {
		<-st.came
	}
	t.Logf("101 hints, connection included: %v", time.Since(start))
	start = time.Now()
	s.Notify(addr, ref(1))
	<-st.came
	t.Logf("one hint on an open connection: %v", time.Since(start))
	refs := st.all()
	if refs[7] != ref(7) || refs[100] != (mailstore.Ref{Volume: "vol01", Account: "account1"}) {
		t.Errorf("got %v", refs)
	}
	until(t, s.o.Metrics, 102, "sent_total")
	s.Notify(addr, mailstore.Ref{Volume: "bad volume"})
	until(t, s.o.Metrics, 1, "dropped_total", "invalid")
}

func TestHintsForOneMailboxAreOne(t *testing.T) {
	c := newCreds(t)
	st := newStore()
	_, addr := serve(t, c.of("box", "box2"), "127.0.0.1:0", st, nil)
	clk := clock.NewFake(time.Unix(1e9, 0))
	s := sender(t, c.of("box", "box1"), &directory{boxes: map[string]string{"box2": addr}}, clk, func(o *Settings) { o.Rate, o.Queue = 1, 10 })
	s.Notify(addr, ref(1))
	s.Notify(addr, ref(2))
	<-st.came
	<-st.came
	// The rate of one a second is used up: what comes now waits, once per mailbox, and ten at most.
	for i := range 12 {
		s.Notify(addr, ref(i))
		s.Notify(addr, ref(i))
	}
	if n := metric(t, s.o.Metrics, "coalesced_total"); n != 10 {
		t.Errorf("%v hints joined others", n)
	}
	if n := metric(t, s.o.Metrics, "dropped_total", "full"); n != 4 {
		t.Errorf("%v dropped", n)
	}
	for range 10 {
		clk.WaitTimers(2) // the pause of the rate, and the idle time-out
		clk.Advance(time.Second)
		<-st.came
	}
	if n := len(st.all()); n != 12 {
		t.Errorf("%d arrived", n)
	}
}

func TestUnlistedAddressesGetNothing(t *testing.T) {
	c := newCreds(t)
	st := newStore()
	_, addr := serve(t, c.of("box", "box2"), "127.0.0.1:0", st, nil)
	other, otherAddr := serve(t, c.of("box", "box3"), "127.0.0.1:0", newStore(), nil)
	_ = other
	dir := &directory{boxes: map[string]string{}}
	clk := clock.NewFake(time.Unix(1e9, 0))
	s := sender(t, c.of("box", "box1"), dir, clk, nil)
	s.Notify(addr, ref(1))
	until(t, s.o.Metrics, 1, "dropped_total", "unlisted")
	s.Notify(addr, ref(1))
	until(t, s.o.Metrics, 2, "dropped_total", "unlisted")
	dir.mu.Lock()
	if dir.asked != 1 {
		t.Errorf("the directory was asked %d times", dir.asked)
	}
	// Listed, but for another box than the one that answers: refused before a byte of hints is sent.
	dir.boxes["box2"] = otherAddr
	dir.mu.Unlock()
	s.Notify(otherAddr, ref(1))
	until(t, s.o.Metrics, 1, "dropped_total", "away")
	// Listed for this very box: no connection to oneself.
	dir.mu.Lock()
	dir.boxes["box2"], dir.boxes["box1"] = addr, "127.0.0.1:1"
	dir.mu.Unlock()
	s.Notify("127.0.0.1:1", ref(1))
	// Listed now, and the pause is over.
	clk.Advance(unlistedPause)
	s.Notify(addr, ref(2))
	<-st.came
	if got := st.all(); len(got) != 1 || got[0] != ref(2) {
		t.Errorf("got %v", got)
	}
	until(t, s.o.Metrics, 1, "sent_total")
	// Taken off the list: at the next look nothing is sent any more.
	dir.mu.Lock()
	delete(dir.boxes, "box2")
	dir.mu.Unlock()
	clk.Advance(recheck)
	s.Notify(addr, ref(3))
	until(t, s.o.Metrics, 3, "dropped_total", "unlisted")
}

func TestPeerAway(t *testing.T) {
	c := newCreds(t)
	st := newStore()
	box2 := c.of("box", "box2")
	srv, addr := serve(t, box2, ports.One(t), st, nil)
	clk := clock.NewFake(time.Unix(1e9, 0))
	s := sender(t, c.of("box", "box1"), &directory{boxes: map[string]string{"box2": addr}}, clk, nil)
	s.Notify(addr, ref(1))
	<-st.came
	must(t, srv.Close())
	until(t, s.o.Metrics, 0, "outgoing_connections") // the close was noticed
	s.Notify(addr, ref(2))
	until(t, s.o.Metrics, 1, "dropped_total", "away")
	s.Notify(addr, ref(3)) // within the pause: dropped at once
	until(t, s.o.Metrics, 2, "dropped_total", "away")
	serve(t, box2, addr, st, nil)
	clk.Advance(pauseLast)
	s.Notify(addr, ref(4))
	<-st.came
	if got := st.all(); got[len(got)-1] != ref(4) {
		t.Errorf("got %v", got)
	}
	until(t, s.o.Metrics, 1, "outgoing_connections")
}

// A peer that was restarted costs no hint once its end was noticed.
func TestPeerRestarted(t *testing.T) {
	c := newCreds(t)
	st := newStore()
	box2 := c.of("box", "box2")
	srv, addr := serve(t, box2, ports.One(t), st, nil)
	s := sender(t, c.of("box", "box1"), &directory{boxes: map[string]string{"box2": addr}}, nil, nil)
	for i := range 10 {
		s.Notify(addr, ref(i))
		<-st.came
		must(t, srv.Close())
		until(t, s.o.Metrics, 0, "outgoing_connections") // the close was noticed
		srv, _ = serve(t, box2, addr, st, nil)
	}
	if n := len(st.all()); n != 10 {
		t.Errorf("%v arrived", n)
	}
}

func TestIdlePeersAreForgotten(t *testing.T) {
	c := newCreds(t)
	st := newStore()
	_, addr := serve(t, c.of("box", "box2"), "127.0.0.1:0", st, nil)
	clk := clock.NewFake(time.Unix(1e9, 0))
	s := sender(t, c.of("box", "box1"), &directory{boxes: map[string]string{"box2": addr}}, clk, nil)
	s.Notify(addr, ref(1))
	<-st.came
	deadline := time.Now().Add(20 * time.Second)
	for n := 1; n > 0; {
		clk.Advance(5 * time.Minute)
		s.mu.Lock()
		n = len(s.peers)
		s.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("the peer is kept for ever")
		}
		runtime.Gosched()
	}
	s.Notify(addr, ref(2))
	<-st.came
}

func TestForgedHintsAreRefused(t *testing.T) {
	c, foreign := newCreds(t), newCreds(t)
	noCert := &tls.Config{InsecureSkipVerify: true} // the server's refusal is what is tested
	for name, cfg := range map[string]*tls.Config{
		"no certificate": noCert,
		"role vault":     c.of("vault", "v1").ClientTLS(pki.RoleBox, pki.RoleSwitch),
		"role operator":  c.of("operator", "joe").ClientTLS(pki.RoleBox, pki.RoleSwitch),
		"foreign CA":     foreign.of("box", "box1").ClientTLS(pki.RoleBox, pki.RoleSwitch),
	} {
		st := newStore()
		srv, addr := serve(t, c.of("box", "box2"), "127.0.0.1:0", st, nil)
		conn, err := net.Dial("tcp", addr)
		must(t, err)
		tc := tls.Client(conn, cfg)
		if tc.Handshake() == nil {
			_, _ = tc.Write([]byte("shoal-hint 1.0\nm v a b\n"))
			buf := make([]byte, 100)
			if n, err := tc.Read(buf); err == nil {
				t.Errorf("%s: the server said %q", name, buf[:n])
			}
		}
		_ = conn.Close()
		until(t, srv.o.Metrics, 1, "refused_total", "certificate")
		if got := st.all(); len(got) != 0 {
			t.Errorf("%s: hints got through: %v", name, got)
		}
	}
}

// A sender does not talk to a peer without the right certificate either.
func TestForgedPeerGetsNothing(t *testing.T) {
	c, foreign := newCreds(t), newCreds(t)
	for name, cert := range map[string]*pki.Credentials{
		"foreign CA": foreign.of("box", "box2"), "another role": c.of("switch", "box2"), "another box": c.of("box", "box3"),
	} {
		st := newStore()
		_, addr := serve(t, cert, "127.0.0.1:0", st, nil)
		s := sender(t, c.of("box", "box1"), &directory{boxes: map[string]string{"box2": addr}}, nil, nil)
		s.Notify(addr, ref(1))
		until(t, s.o.Metrics, 1, "dropped_total", "away")
		if got := st.all(); len(got) != 0 {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestBadPeers(t *testing.T) {
	c := newCreds(t)
	client := c.of("box", "box1").ClientTLS(pki.RoleBox, pki.RoleSwitch)
	for _, bad := range []string{
		"hello\n", "shoal-hint 2.0\n", "shoal-hint 1.0\nM v a b\n", "shoal-hint 1.0\nm v a\n",
		"shoal-hint 1.0\n" + strings.Repeat("x", 1000), "shoal-hint 1.0\nm v a b\x00\n", "\n", "shoal-hint 1.0\n\n",
	} {
		st := newStore()
		srv, addr := serve(t, c.of("box", "box2"), "127.0.0.1:0", st, nil)
		conn, err := tls.Dial("tcp", addr, client)
		must(t, err)
		_, err = conn.Write([]byte(bad))
		must(t, err)
		in := bufio.NewReader(conn)
		_, err = in.ReadString('\n')
		must(t, err)
		line, err := in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "e ") {
			t.Errorf("%q: answered %q, %v", bad, line, err)
		}
		_ = conn.Close()
		until(t, srv.o.Metrics, 1, "refused_total", "protocol")
		if len(st.all()) != 0 {
			t.Errorf("%q: hints got through", bad)
		}
	}
}

func TestServerBoundsTheRate(t *testing.T) {
	c := newCreds(t)
	clk := clock.NewFake(time.Unix(1e9, 0))
	st := newStore()
	set := settings(nil)
	set.Rate = 10
	srv, addr := serve(t, c.of("box", "box2"), "127.0.0.1:0", st, func(o *ServerOptions) { o.Clock, o.Settings = clk, &set })
	conn, err := tls.Dial("tcp", addr, c.of("box", "box1").ClientTLS(pki.RoleBox, pki.RoleSwitch))
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("shoal-hint 1.0\n" + strings.Repeat("m v a b\n", 100)))
	must(t, err)
	until(t, srv.o.Metrics, 80, "refused_total", "rate")
	if n := len(st.all()); n != 20 {
		t.Errorf("%d taken", n)
	}
}
