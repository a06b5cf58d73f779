package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// A popLoad retrieves mailboxes over POP3, several at once, and leaves everything where it is.
type popLoad struct {
	addr, pass string
	users      []string // one session for each at a time
	rounds     int      // logins of each user
	messages   int      // in each mailbox
	pipelined  bool     // all of RETR is sent at once
}

// operations is how many messages a run retrieves.
func (l popLoad) operations() int { return len(l.users) * l.rounds * l.messages }

func (l popLoad) run() error {
	var wg sync.WaitGroup
	errs := make(chan error, len(l.users))
	for _, u := range l.users {
		wg.Go(func() {
			for range l.rounds {
				if err := l.session(u); err != nil {
					errs <- fmt.Errorf("%s: %w", u, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// session logs in, lists, retrieves every message to its last dot and checks that there is as much of it as was listed.
func (l popLoad) session(user string) error {
	c, err := net.DialTimeout("tcp", l.addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	r := bufio.NewReaderSize(c, 64<<10)
	line := func() (string, error) {
		s, err := r.ReadString('\n')
		if err == nil && !strings.HasPrefix(s, "+OK") {
			err = fmt.Errorf("the server says %q", s)
		}
		return s, err
	}
	if _, err := line(); err != nil {
		return err
	}
	for _, command := range []string{"USER " + user, "PASS " + l.pass, "STAT"} {
		if _, err := c.Write([]byte(command + "\r\n")); err != nil {
			return err
		}
		answer, err := line()
		if err != nil {
			return err
		}
		if command == "STAT" && !strings.HasPrefix(answer, fmt.Sprintf("+OK %d ", l.messages)) {
			return fmt.Errorf("%q, want %d messages", answer, l.messages)
		}
	}
	if l.pipelined {
		var b bytes.Buffer
		for i := range l.messages {
			fmt.Fprintf(&b, "RETR %d\r\n", i+1)
		}
		sent := make(chan error, 1)
		go func() { _, err := c.Write(b.Bytes()); sent <- err }()
		defer func() { <-sent }()
	}
	for i := range l.messages {
		if !l.pipelined {
			if _, err := fmt.Fprintf(c, "RETR %d\r\n", i+1); err != nil {
				return err
			}
		}
		if _, err := line(); err != nil {
			return err
		}
		for size := 0; ; {
			text, err := r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if len(text) == 3 && text[0] == '.' {
				if size < 4096 {
					return fmt.Errorf("message %d has %d bytes", i+1, size)
				}
				break
			}
			size += len(text)
		}
	}
	if _, err := c.Write([]byte("QUIT\r\n")); err != nil {
		return err
	}
	_, err = line()
	return err
}

// benchPOP fills mailboxes over LMTP, then retrieves them: long sessions, the same pipelined, and short ones, where logging in counts.
func benchPOP(b *bench) ([]row, error) {
	shoal, err := b.shoal()
	if err != nil {
		return nil, err
	}
	defer shoal.stop()
	dovecot, err := b.dovecot()
	if err != nil {
		return nil, err
	}
	defer dovecot.stop()
	const each = 200
	// Users that the deliveries of other suites do not go to.
	all := recipients("bench.test", 50+2*b.sessions)[50:]
	long, short := all[:b.sessions], all[b.sessions:]
	type peer struct {
		name, addr, pass string
		t                *tree
	}
	peers := []peer{{"boxd", shoal.pop, shoal.password, shoal.box}, {"Dovecot (Maildir)", dovecot.pop, "bench", dovecot.tree}}
	for i, p := range peers {
		l := mailLoad{lmtp: true, sessions: b.sessions, messages: each * len(long), size: 4096, recipients: long, addr: shoal.lmtp, tls: shoal.lmtpTLS}
		if i == 1 {
			l.addr, l.tls = dovecot.lmtp, nil
		}
		if err := l.run(); err != nil {
			return nil, fmt.Errorf("%s, filling: %w", p.name, err)
		}
		l.recipients, l.messages = short, 5*len(short)
		if err := l.run(); err != nil {
			return nil, fmt.Errorf("%s, filling: %w", p.name, err)
		}
	}
	var rows []row
	for _, kind := range []struct {
		what string
		load popLoad
	}{
		{fmt.Sprintf("RETR of messages of 4096 bytes, %d a session", each), popLoad{users: long, messages: each, rounds: max(1, b.messages/each/2)}},
		{fmt.Sprintf("the same pipelined, %d a session", each), popLoad{users: long, messages: each, rounds: max(1, b.messages/each/2), pipelined: true}},
		{"the same, 5 a session", popLoad{users: short, messages: 5, rounds: max(1, b.messages/100)}},
	} {
		for _, p := range peers {
			l := kind.load
			l.addr, l.pass = p.addr, p.pass
			warm := l
			warm.rounds = 1
			if err := warm.run(); err != nil {
				return rows, fmt.Errorf("%s, warming up: %w", p.name, err)
			}
			m, err := p.t.measure(l.run)
			if err != nil {
				return rows, fmt.Errorf("%s: %w", p.name, err)
			}
			r := row{Server: p.name, Load: fmt.Sprintf("%s, %d sessions at once", kind.what, len(l.users)), Values: m.per(l.operations())}
			delete(r.Values, "disk flushes per op")
			c, err := p.t.count(b.dir, warm.run)
			if err != nil {
				return rows, fmt.Errorf("%s, counting: %w", p.name, err)
			}
			c.add(r.Values, warm.operations())
			delete(r.Values, "sync calls per op")
			rows = append(rows, r)
		}
	}
	return rows, nil
}
