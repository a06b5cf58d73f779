package kit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
)

// patience bounds every wait of these tests; it is never reached when they pass.
const patience = 20 * time.Second

func testEnv(t *testing.T) *Env {
	t.Helper()
	e := &Env{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Clock: clock.System()}
	t.Cleanup(func() {
		if err := e.cleanups.run(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func listen(t *testing.T, e *Env, c conf.Listener, opts ...ListenOption) net.Listener {
	t.Helper()
	c.Name, c.Address = "test", "127.0.0.1:0"
	if c.MaxConnections == 0 {
		c.MaxConnections = 100
	}
	l, err := e.Listen(c, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dial connects from a local address.
func dial(t *testing.T, from string, to net.Listener) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	c, err := d.Dial("tcp", to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// wantClosed fails unless the peer closes the connection, after having sent exactly text.
func wantClosed(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("not closed: %v", err)
	}
	if string(b) != text {
		t.Errorf("got %q before the end, wanted %q", b, text)
	}
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	got := make(chan result, 1)
	go func() { c, err := l.Accept(); got <- result{c, err} }()
	select {
	case r := <-got:
		if r.err != nil {
			t.Fatal(r.err)
		}
		t.Cleanup(func() { r.c.Close() })
		return r.c
	case <-time.After(patience):
		t.Fatal("nothing accepted")
	}
	return nil
}

func read(t *testing.T, c net.Conn, n int) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func metric(t *testing.T, e *Env, reason string) float64 {
	t.Helper()
	return value(t, e.stats.refused.WithLabelValues("test", reason))
}

// value reads a counter or a gauge.
func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}

// header is a PROXY protocol v2 header: signature, version and command, family, length, payload.
func header(command, family byte, payload string) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{0x20 | command, family, byte(len(payload) >> 8), byte(len(payload))}) + payload
}

const (
	cmdLocal, cmdProxy = 0, 1
	famTCP4            = 0x11
	// 203.0.113.7:1234 -> 198.51.100.9:25
	addresses = "\xcb\x00\x71\x07\xc6\x33\x64\x09\x04\xd2\x00\x19"
)

func TestConnectionLimit(t *testing.T) {
	e := testEnv(t)
	l := listen(t, e, conf.Listener{MaxConnections: 2}, WithFarewell("421 too many\r\n"))
	first, second := dial(t, "127.0.0.1", l), dial(t, "127.0.0.1", l)
	a, _ := accept(t, l), accept(t, l)
	third := dial(t, "127.0.0.1", l)
	got := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			got <- c
		}
	}()
	wantClosed(t, third, "421 too many\r\n")
	if n := metric(t, e, "limit"); n != 1 {
		t.Errorf("%v refused, wanted 1", n)
	}
	if n := value(t, e.stats.open.WithLabelValues("test")); n != 2 {
		t.Errorf("%v open, wanted 2", n)
	}
	// One that ends, however often it is closed, makes room for one.
	a.Close()
	a.Close()
	dial(t, "127.0.0.1", l)
	select {
	case c := <-got:
		defer c.Close()
	case <-time.After(patience):
		t.Fatal("no room after a connection ended")
	}
	fourth := dial(t, "127.0.0.1", l)
	go l.Accept()
	wantClosed(t, fourth, "421 too many\r\n")
	if n := value(t, e.stats.accepted.WithLabelValues("test")); n != 3 {
		t.Errorf("%v accepted, wanted 3", n)
	}
	first.Close()
	second.Close()
}

// Without proxy_from a header is data like any other, and the address is the peer's.
func TestHeaderIsNotParsedWithoutProxyFrom(t *testing.T) {
	l := listen(t, testEnv(t), conf.Listener{})
	h := header(cmdProxy, famTCP4, addresses)
	c := dial(t, "127.0.0.1", l)
	send(t, c, h)
	s := accept(t, l)
	if got := s.RemoteAddr().String(); got != c.LocalAddr().String() {
		t.Errorf("remote %s, wanted %s", got, c.LocalAddr())
	}
	if got := read(t, s, len(h)); got != h {
		t.Errorf("read %q", got)
	}
}

func TestProxyHeader(t *testing.T) {
	e := testEnv(t)
	l := listen(t, e, conf.Listener{ProxyFrom: []string{"127.0.0.2"}})
	c := dial(t, "127.0.0.2", l)
	send(t, c, header(cmdProxy, famTCP4, addresses+"\x04\x00\x01x")+"EHLO")
	s := accept(t, l)
	if got := s.RemoteAddr().String(); got != "203.0.113.7:1234" {
		t.Errorf("remote %s", got)
	}
	if got := s.LocalAddr().String(); got != "198.51.100.9:25" {
		t.Errorf("local %s", got)
	}
	// What follows the header is still in the socket, for whoever looks there.
	if got := read(t, s.(interface{ NetConn() net.Conn }).NetConn(), 4); got != "EHLO" {
		t.Errorf("read %q behind the header", got)
	}
	send(t, s, "hello")
	if err := s.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, c, "hello")
}

func TestProxyHeaderIPv6(t *testing.T) {
	l := listen(t, testEnv(t), conf.Listener{ProxyFrom: []string{"127.0.0.0/8"}})
	src, dst := netip.MustParseAddr("2001:db8::7").As16(), netip.MustParseAddr("2001:db8::9").As16()
	c := dial(t, "127.0.0.1", l)
	send(t, c, header(cmdProxy, 0x21, string(src[:])+string(dst[:])+"\x04\xd2\x00\x19"))
	if got := accept(t, l).RemoteAddr().String(); got != "[2001:db8::7]:1234" {
		t.Errorf("remote %s", got)
	}
}

// A balancer's own health check carries LOCAL: the addresses are those of the connection.
func TestProxyHeaderLocal(t *testing.T) {
	l := listen(t, testEnv(t), conf.Listener{ProxyFrom: []string{"127.0.0.2"}})
	for _, h := range []string{header(cmdLocal, 0, ""), header(cmdLocal, famTCP4, addresses)} {
		c := dial(t, "127.0.0.2", l)
		send(t, c, h)
		if got := accept(t, l).RemoteAddr().String(); got != c.LocalAddr().String() {
			t.Errorf("remote %s, wanted %s", got, c.LocalAddr())
		}
	}
}

// A client that is no balancer is refused, with a forged header or without one.
func TestForgedProxyHeader(t *testing.T) {
	e := testEnv(t)
	l := listen(t, e, conf.Listener{ProxyFrom: []string{"127.0.0.2", "192.0.2.0/24"}})
	go l.Accept() // makes the listener read; it ends with it
	for i, text := range []string{header(cmdProxy, famTCP4, addresses), "EHLO x\r\n", ""} {
		c := dial(t, "127.0.0.1", l)
		send(t, c, text)
		wantClosed(t, c, "")
		if n := metric(t, e, "source"); n != float64(i+1) {
			t.Errorf("%v refused for their source, wanted %d", n, i+1)
		}
	}
	if n := value(t, e.stats.open.WithLabelValues("test")); n != 0 {
		t.Errorf("%v still counted as open", n)
	}
}

// What a balancer may not send.
func TestBadProxyHeader(t *testing.T) {
	for name, text := range map[string]string{
		"none":             "EHLO example.test\r\n",
		"version 1":        "PROXY TCP4 203.0.113.7 198.51.100.9 1234 25\r\n",
		"bad version":      strings.Replace(header(cmdProxy, famTCP4, addresses), "QUIT\n\x21", "QUIT\n\x31", 1),
		"bad command":      header(7, famTCP4, addresses),
		"unknown family":   header(cmdProxy, 0, ""),
		"UDP":              header(cmdProxy, 0x12, addresses),
		"Unix":             header(cmdProxy, 0x31, strings.Repeat("\x00", 216)),
		"short address":    header(cmdProxy, famTCP4, addresses[:8]),
		"too long":         header(cmdProxy, famTCP4, addresses+strings.Repeat("\x00", 60000))[:100],
		"broken signature": "\r\n\r\n\x00\r\nQUIX\n" + "rest of it",
		"cut off":          header(cmdProxy, famTCP4, addresses)[:20],
	} {
		t.Run(name, func(t *testing.T) {
			e := testEnv(t)
			// All of these are refused at sight, not by the clock.
			l := listen(t, e, conf.Listener{ProxyFrom: []string{"127.0.0.0/8"}}, func(l *listener) { l.patience = time.Hour })
			go l.Accept()
			c := dial(t, "127.0.0.1", l)
			// The end may come while we still send.
			_, _ = io.WriteString(c, text)
			if name == "cut off" {
				if err := c.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			wantClosed(t, c, "")
			if n := metric(t, e, "header"); n != 1 {
				t.Errorf("%v refused for their header, wanted 1", n)
			}
		})
	}
}

// A header that does not come ends its connection, and delays no other.
func TestSlowProxyHeader(t *testing.T) {
	e := testEnv(t)
	l := listen(t, e, conf.Listener{ProxyFrom: []string{"127.0.0.0/8"}}, func(l *listener) { l.patience = 300 * time.Millisecond })
	var slow []net.Conn
	var quick, accepted net.Conn
	for range 3 {
		c := dial(t, "127.0.0.1", l)
		send(t, c, "\r\n\r\n\x00")
		slow = append(slow, c)
		quick = dial(t, "127.0.0.1", l)
		send(t, quick, header(cmdProxy, famTCP4, addresses))
		accepted = accept(t, l)
	}
	for _, c := range slow {
		wantClosed(t, c, "")
	}
	// That time was for the header only: who sent it may be silent for longer.
	send(t, quick, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(accepted, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if n := metric(t, e, "header"); n != 3 {
		t.Errorf("%v refused for their header, wanted 3", n)
	}
}

func TestCloseEndsAccept(t *testing.T) {
	for _, from := range [][]string{nil, {"127.0.0.1"}} {
		l := listen(t, testEnv(t), conf.Listener{ProxyFrom: from})
		ended := make(chan error, 1)
		go func() { _, err := l.Accept(); ended <- err }()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("proxy %v: %v", from, err)
			}
		case <-time.After(patience):
			t.Fatalf("proxy %v: Accept goes on", from)
		}
	}
}

func TestBindErrors(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	address := busy.Addr().String()
	_, err = testEnv(t).Listen(conf.Listener{Name: "smtp", Address: address, MaxConnections: 1})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{`listener "smtp"`, address, "another listener of this daemon", "write another address"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	_, err = testEnv(t).Listen(conf.Listener{Name: "smtp", Address: "192.0.2.1:2525", MaxConnections: 1})
	if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "not an address of this machine") {
		t.Errorf("%v", err)
	}
	err = bindError("smtp", "127.0.0.1:25", fmt.Errorf("listen: %w", syscall.EACCES))
	if !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Errorf("%v", err)
	}
	if _, err := testEnv(t).Listen(conf.Listener{Name: "smtp", Address: "127.0.0.1:0", ProxyFrom: []string{"x"}}); err == nil {
		t.Error("a bad network was taken")
	}
}

// flaky fails to accept a few times for lack of file descriptors.
type flaky struct {
	net.Listener
	left int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptOutlivesLackOfFiles(t *testing.T) {
	e := testEnv(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.prebound = map[string]net.Listener{"test": &flaky{inner, 3}}
	l, err := e.Listen(conf.Listener{Name: "test", Address: "127.0.0.1:0", MaxConnections: 1})
	if err != nil {
		t.Fatal(err)
	}
	dial(t, "127.0.0.1", l)
	accept(t, l)
	if n := metric(t, e, "resources"); n != 3 {
		t.Errorf("counted %v times, wanted 3", n)
	}
}

func TestCleanups(t *testing.T) {
	var c cleanups
	var order []string
	for _, name := range []string{"first", "second", "third"} {
		c.add(name, func() error {
			order = append(order, name)
			if name == "second" {
				return errors.New("broken")
			}
			return nil
		})
	}
	err := c.run()
	if got := strings.Join(order, " "); got != "third second first" {
		t.Errorf("order %s", got)
	}
	if err == nil || err.Error() != "close second: broken" {
		t.Errorf("error %v", err)
	}
	if err := c.run(); err != nil || len(order) != 3 {
		t.Errorf("run twice: %v, %v", order, err)
	}
}

func TestIsLoopback(t *testing.T) {
	open := func(address string) net.Listener {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	inside, outside := open("127.0.0.3:0"), open(":0")
	for _, c := range []struct {
		l    net.Listener
		want bool
	}{
		{inside, true}, {outside, false}, {&merged{all: []net.Listener{inside}}, true}, {&merged{all: []net.Listener{inside, outside}}, false},
	} {
		if got := isLoopback(c.l); got != c.want {
			t.Errorf("%v: %v", c.l.Addr(), got)
		}
	}
}

func TestBootName(t *testing.T) {
	if got := bootName(bootEpoch.Add(36 * time.Millisecond)); got != "10" {
		t.Errorf("got %q", got)
	}
}
