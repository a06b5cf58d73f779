package imapsession

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/sasl"
)

func TestLoginDisabled(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Limits.AllowPlain = false })
	r.run(`
open 1 imap
S1: * OK [CAPABILITY {{.*}} STARTTLS LOGINDISABLED] {{.*}}
C1: a1 LOGIN alice secret
S1: a1 NO [PRIVACYREQUIRED] {{.*}}
C1: a2 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==
S1: a2 NO [PRIVACYREQUIRED] {{.*}}
C1: a3 STARTTLS
S1: a3 OK {{.*}}
starttls 1
C1: a4 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==
S1: a4 OK {{.*}}
open 2 imaps
S2: * OK [CAPABILITY {{.*}} AUTH=PLAIN AUTH=LOGIN AUTH=OAUTHBEARER AUTH=XOAUTH2] {{.*}}
C2: a1 LOGIN alice secret
S2: a1 OK {{.*}}
`)
	if n := len(r.auth.logins); n != 2 {
		t.Errorf("passwords went to the directory %d times, 2 of them could", n)
	}
}

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) {
		o.Limits.MaxConnections = 4
		o.Limits.MaxPerAddress = 3
		o.Limits.MaxPerUser = 1
	})
	a := r.connect("alice")
	b := r.connect("bob")
	conn, err := r.dial()
	c := newClient(t, conn, err)
	c.expect("* OK")
	if _, tagged := c.do("LOGIN alice secret"); !strings.HasPrefix(tagged, "NO [LIMIT]") {
		t.Errorf("second login of one user: %s", tagged)
	}
	conn, err = r.dial()
	d := newClient(t, conn, err)
	d.expect("* BYE [UNAVAILABLE]")
	d.closed()
	// What ends makes room.
	a.ok("LOGOUT")
	a.closed()
	c.ok("LOGIN alice secret")
	b.Close()
	waitFor(t, "the end of a session", func() bool { return r.value("shoal_imap_connections") == 1 })
	r.connect("bob")
}

// waitFor waits until done says so, which it does soon or never.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(time.Now())
	r := newRig(t, func(o *Options) { o.Clock = fake })
	conn, err := r.dial()
	fresh := newClient(t, conn, err)
	fresh.expect("* OK")
	waiting := r.connect("alice")
	idle := r.connect("bob")
	idle.send("x IDLE\r\n")
	idle.expect("+ ")
	parked := func() bool {
		r.srv.mu.Lock()
		defer r.srv.mu.Unlock()
		for s := range r.srv.sessions {
			if s.events.Load() != 0 {
				return false
			}
		}
		return true
	}
	pass := func(d time.Duration) {
		for ; d > 0; d -= sweepEvery {
			waitFor(t, "rest", parked)
			fake.WaitTimers(1)
			fake.Advance(sweepEvery)
		}
		fake.WaitTimers(1)
	}
	fresh.ok("NOOP")
	pass(30 * time.Second)
	fresh.ok("NOOP") // a command is no login
	pass(30 * time.Second)
	fresh.expect("* BYE No login in time")
	fresh.closed()
	pass(29 * time.Minute)
	waiting.ok("NOOP")
	pass(3 * time.Minute)
	idle.expect("* BYE No command for too long")
	idle.closed()
	waiting.ok("NOOP")
	pass(31 * time.Minute)
	waiting.expect("* BYE No command for too long")
	waiting.closed()
}

func TestSlowInput(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Limits.ReadTimeout = 50 * time.Millisecond })
	for _, half := range []string{"a NOO", "a LOGIN {5}\r\nal", "a LOGIN {5+}\r\n", "a AUTHENTICATE PLAIN\r\n"} {
		conn, err := r.dial()
		c := newClient(t, conn, err)
		c.expect("* OK")
		c.send(half)
		for {
			if line := c.line(); !strings.HasPrefix(line, "+") {
				if !strings.HasPrefix(line, "* BYE Command was not completed in time") {
					t.Errorf("%q: %s", half, line)
				}
				break
			}
		}
		c.closed()
	}
	c := r.connect("alice")
	c.send("a APPEND INBOX {100+}\r\nhalf")
	c.expect("* BYE")
	c.closed()
	if got := r.connect("alice").ok("STATUS INBOX (MESSAGES)"); got[0] != "* STATUS INBOX (MESSAGES 0)" {
		t.Errorf("half a message was stored: %s", got)
	}
}

// A client that does not take its answer is given up and holds up nobody.
func TestSlowOutput(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Limits.WriteTimeout = 100 * time.Millisecond })
	r.deliver("alice", "INBOX", "Subject: big\r\n\r\n"+strings.Repeat("0123456789abcdef\r\n", 1<<19))
	c := r.connect("alice")
	c.ok("SELECT INBOX")
	for range 4 {
		c.send("x FETCH 1 BODY.PEEK[]\r\n")
	}
	other := r.connect("bob")
	other.ok("NOOP")
	waitFor(t, "end of the slow session", func() bool { return r.value("shoal_imap_connections") == 1 })
	if r.value("shoal_imap_timeouts_total") != 1 {
		t.Error("the time-out is not counted")
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	idle := r.connect("alice")
	idle.ok("SELECT INBOX")
	idle.send("x IDLE\r\n")
	idle.expect("+ ")
	waiting := r.connect("bob")
	busy := r.connect("carol")
	busy.send("x APPEND INBOX {6}\r\n")
	busy.expect("+ ")
	done := make(chan error)
	go func() { done <- r.srv.Shutdown(context.Background()) }()
	idle.expect("* BYE Server is shutting down")
	idle.closed()
	waiting.expect("* BYE Server is shutting down")
	waiting.closed()
	// The command in progress is finished first.
	busy.send("a: b\r\n\r\n")
	busy.expect("x OK [APPENDUID")
	busy.expect("* BYE Server is shutting down")
	busy.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := r.dial(); err == nil {
		c.Close()
		t.Error("connections are accepted after Shutdown")
	}
}

func TestShutdownGivesUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	busy := r.connect("carol")
	busy.send("x APPEND INBOX {6}\r\n")
	busy.expect("+ ")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := r.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v", err)
	}
}

// panicking is an Auth with a bug.
type panicking struct{ sasl.Authenticator }

func (panicking) Password(context.Context, authn.From, string, string) (*authn.Grant, error) {
	panic("a bug")
}

func TestPanicEndsOneSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Auth, o.Metrics = panicking{}, nil })
	dial := func() *client {
		conn, err := r.dial()
		c := newClient(t, conn, err)
		c.expect("* OK")
		return c
	}
	a, b := dial(), dial()
	a.send("x LOGIN alice secret\r\n")
	a.closed()
	b.ok("NOOP")
	dial().ok("NOOP")
}

// pipes is a listener of connections that are no sockets.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// A connection that is no socket is served too, with a goroutine that waits for it.
func TestNoSocket(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	listener := make(pipes)
	go r.srv.Serve(listener)
	defer close(listener)
	dial := func() (net.Conn, error) {
		ours, theirs := net.Pipe()
		listener <- theirs
		return ours, nil
	}
	conn, err := dial()
	c := newClient(t, conn, err)
	c.expect("* OK")
	c.ok("LOGIN alice secret")
	c.ok("SELECT INBOX")
	c.send("x IDLE\r\n")
	c.expect("+ ")
	r.deliver("alice", "INBOX", "a: b\r\n")
	c.expect("* 1 EXISTS")
	c.expect("* 1 RECENT")
	c.send("DONE\r\n")
	c.expect("x OK")
	if _, tagged := c.do("STARTTLS"); !strings.HasPrefix(tagged, "BAD") {
		t.Error(tagged)
	}
	c.ok("LOGOUT")
}

// counted is a connection as a listener that counts hands it out.
type counted struct {
	net.Conn
	closed *atomic.Int64
}

func (c *counted) NetConn() net.Conn { return c.Conn }
func (c *counted) Close() error {
	c.closed.Add(1)
	return c.Conn.Close()
}

type counting struct {
	net.Listener
	closed atomic.Int64
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &counted{c, &l.closed}, nil
}

// The socket is found below what wraps it; the wrapper hears of the end; what the PROXY protocol read
// ahead is not lost; and the client's address is the one of the header.
func TestWrappedConnections(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		r := newRig(t, nil)
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		count := &counting{Listener: inner}
		l := &proxyproto.Listener{Listener: count, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			return proxyproto.REQUIRE, nil
		}}
		if secure {
			go r.srv.ServeTLS(l)
		} else {
			go r.srv.Serve(l)
		}
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		header := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 999}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 143})
		text, err := header.Format()
		if err != nil {
			t.Fatal(err)
		}
		if !secure {
			text = append(text, "e1 LOGIN alice secret\r\n"...)
		}
		if _, err := conn.Write(text); err != nil {
			t.Fatal(err)
		}
		if secure {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		c := newClient(t, conn, nil)
		c.expect("* OK")
		if secure {
			c.send("e1 LOGIN alice secret\r\n")
		}
		c.expect("e1 OK")
		if got := r.auth.logins[0]; got != "alice from 192.0.2.7" {
			t.Errorf("login by %s", got)
		}
		r.srv.mu.Lock()
		for s := range r.srv.sessions {
			if s.t.raw == nil {
				t.Error("the socket was not found")
			}
		}
		r.srv.mu.Unlock()
		c.ok("LOGOUT")
		c.closed()
		waitFor(t, "close of the counted connection", func() bool { return count.closed.Load() == 1 })
		inner.Close()
	}
}

// Input that arrives in every way of cutting it is understood, over TLS and without.
func TestInputInPieces(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for name, dial := range r.targets() {
		conn, err := dial()
		c := newClient(t, conn, err)
		c.expect("* OK")
		for _, b := range []byte("a LOGIN {5+}\r\nalice secret\r\n") {
			c.send(string([]byte{b}))
		}
		c.expect("a OK")
		c.send(strings.Repeat("b NOOP\r\n", 3000))
		for range 3000 {
			if line := c.line(); line != "b OK NOOP completed" {
				t.Fatalf("%s: %s", name, line)
			}
		}
		c.ok("LOGOUT")
	}
}

// An accept that fails is tried again.
func TestAcceptAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	listener := make(pipes, 1)
	flaky := &failing{pipes: listener, left: 3}
	go r.srv.Serve(flaky)
	ours, theirs := net.Pipe()
	listener <- theirs
	c := newClient(t, ours, nil)
	c.expect("* OK")
	close(listener)
}

type failing struct {
	pipes
	left int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		return nil, &net.OpError{Op: "accept", Err: io.ErrNoProgress}
	}
	return f.pipes.Accept()
}
