package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A mailLoad sends messages to an SMTP or LMTP server over several sessions and checks every answer.
type mailLoad struct {
	addr       string
	lmtp       bool
	tls        *tls.Config // STARTTLS first when set
	sessions   int
	messages   int
	size       int
	recipients []string
	perSession int // messages on one connection before QUIT; 0: no limit
}

// body makes a message of about size bytes, CRLF lines, dots free.
func body(size, n int) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "From: Load <load@example.test>\r\nTo: You <you@example.test>\r\nSubject: message %d\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%d.%d@load.example.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", n, n, time.Now().UnixNano())
	for sb.Len() < size {
		sb.WriteString("The quick brown fox jumps over the lazy dog and goes on its way to the sea.\r\n")
	}
	return sb.String()
}

func (l mailLoad) run() error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, l.sessions)
	for range l.sessions {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				more, err := l.session(&next)
				if err != nil {
					errs <- err
					return
				}
				if !more {
					return
				}
			}
		}()
	}
	wg.Wait()
	close(errs)
	return <-errs
}

type mailConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *mailConn) expect(code string) error {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", code, err)
		}
		if !strings.HasPrefix(line, code) {
			return fmt.Errorf("wanted %s, got %q", code, strings.TrimSpace(line))
		}
		if len(line) > 3 && line[3] == ' ' {
			return nil
		}
	}
}

func (c *mailConn) cmd(code, format string, a ...any) error {
	if _, err := fmt.Fprintf(c, format+"\r\n", a...); err != nil {
		return err
	}
	return c.expect(code)
}

func (l mailLoad) session(next *atomic.Int64) (more bool, err error) {
	raw, err := net.DialTimeout("tcp", l.addr, 10*time.Second)
	if err != nil {
		return false, err
	}
	defer func() { raw.Close() }()
	_ = raw.SetDeadline(time.Now().Add(5 * time.Minute))
	c := &mailConn{raw, bufio.NewReader(raw)}
	if err := c.expect("220"); err != nil {
		return false, err
	}
	hello := "EHLO load.example.test"
	if l.lmtp {
		hello = "LHLO load.example.test"
	}
	if err := c.cmd("250", "%s", hello); err != nil {
		return false, err
	}
	if l.tls != nil {
		if err := c.cmd("220", "STARTTLS"); err != nil {
			return false, err
		}
		t := tls.Client(raw, l.tls)
		c = &mailConn{t, bufio.NewReader(t)}
		if err := c.cmd("250", "%s", hello); err != nil {
			return false, err
		}
	}
	for done := 0; ; done++ {
		if l.perSession > 0 && done == l.perSession {
			return true, c.cmd("221", "QUIT")
		}
		n := int(next.Add(1))
		if n > l.messages {
			return false, c.cmd("221", "QUIT")
		}
		if err := c.cmd("250", "MAIL FROM:<load@example.test>"); err != nil {
			return false, err
		}
		if err := c.cmd("250", "RCPT TO:<%s>", l.recipients[n%len(l.recipients)]); err != nil {
			return false, err
		}
		if err := c.cmd("354", "DATA"); err != nil {
			return false, err
		}
		if _, err := io.WriteString(c, body(l.size, n)+".\r\n"); err != nil {
			return false, err
		}
		if err := c.expect("250"); err != nil {
			return false, err
		}
	}
}

// A sink is an LMTP server that takes everything and keeps nothing. Both switches deliver into it, so that
// neither pays for a store.
type sink struct {
	addr  string
	tls   *tls.Config // offered as STARTTLS when set
	count atomic.Int64
	l     net.Listener
}

func newSink(cfg *tls.Config) (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{addr: l.Addr().String(), tls: cfg, l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, nil
}

func (s *sink) serve(c net.Conn) {
	defer c.Close()
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	secure := false
	say := func(t string) { w.WriteString(t + "\r\n") }
	say("220 sink LMTP")
	rcpts := 0
	for {
		if r.Buffered() == 0 {
			if w.Flush() != nil {
				return
			}
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb := strings.ToUpper(strings.TrimSpace(line))
		if i := strings.IndexByte(verb, ' '); i > 0 {
			verb = verb[:i]
		}
		switch verb {
		case "LHLO":
			say("250-sink")
			say("250-PIPELINING")
			say("250-8BITMIME")
			say("250-SMTPUTF8")
			say("250-DSN")
			say("250-SIZE 104857600")
			if s.tls != nil && !secure {
				say("250-STARTTLS")
			}
			say("250 ENHANCEDSTATUSCODES")
		case "STARTTLS":
			say("220 2.0.0 go")
			if w.Flush() != nil {
				return
			}
			t := tls.Server(c, s.tls)
			if t.Handshake() != nil {
				return
			}
			secure = true
			r, w = bufio.NewReader(t), bufio.NewWriter(t)
		case "RCPT":
			rcpts++
			say("250 2.1.5 ok")
		case "DATA":
			say("354 go")
			if w.Flush() != nil {
				return
			}
			for {
				b, err := r.ReadSlice('\n')
				if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
					return
				}
				if string(b) == ".\r\n" {
					break
				}
			}
			for ; rcpts > 0; rcpts-- {
				s.count.Add(1)
				say("250 2.0.0 taken")
			}
		case "QUIT":
			say("221 2.0.0 bye")
			w.Flush()
			return
		default: // MAIL, RSET, NOOP
			if verb == "RSET" || verb == "MAIL" {
				rcpts = 0
			}
			say("250 2.0.0 ok")
		}
	}
}

// waitCount waits until the sink has n messages.
func (s *sink) waitCount(n int64) error {
	last, since := s.count.Load(), time.Now()
	for s.count.Load() < n {
		if now := s.count.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > 30*time.Second {
			return fmt.Errorf("the sink stands at %d of %d messages", last, n)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}
