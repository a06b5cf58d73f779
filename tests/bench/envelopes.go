package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// listRuns is how often a mailbox is listed in a measurement.
const listRuns = 10

// An imapConn speaks as much IMAP as listing a mailbox takes.
type imapConn struct {
	net.Conn
	r *bufio.Reader
}

func imapLogin(addr, user, pass string) (*imapConn, error) {
	raw, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(10 * time.Minute))
	c := &imapConn{raw, bufio.NewReaderSize(raw, 1<<20)}
	if _, err := c.r.ReadString('\n'); err != nil {
		return nil, err
	}
	_, err = c.do("LOGIN " + user + " " + pass)
	return c, err
}

// do sends a command and reads its answer to the end. It counts the FETCH responses.
func (c *imapConn) do(command string) (fetched int, err error) {
	if _, err := io.WriteString(c, "a "+command+"\r\n"); err != nil {
		return 0, err
	}
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return fetched, fmt.Errorf("%.60s: %w", command, err)
		}
		if line[0] == '*' && strings.Contains(string(line[:min(len(line), 30)]), " FETCH ") {
			fetched++
		}
		if strings.HasPrefix(string(line[:min(len(line), 4)]), "a ") {
			if line[2] != 'O' {
				return fetched, fmt.Errorf("%.60s: %s", command, line)
			}
			return fetched, nil
		}
		if len(line) > 3 && line[len(line)-3] == '}' {
			var n int64
			at := strings.LastIndexByte(string(line), '{')
			if _, err := fmt.Sscanf(string(line[at:]), "{%d}", &n); err != nil {
				return fetched, err
			}
			if _, err := io.CopyN(io.Discard, c.r, n); err != nil {
				return fetched, err
			}
		}
	}
}

// fill makes INBOX hold n messages: some are appended and then copied.
func (c *imapConn) fill(n int) error {
	const some = 200
	for i := range some {
		text := body(4096, i)
		if _, err := c.do(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(text), text)); err != nil {
			return err
		}
	}
	if _, err := c.do("SELECT INBOX"); err != nil {
		return err
	}
	for i := some; i < n; i += some {
		if _, err := c.do(fmt.Sprintf("COPY 1:%d INBOX", some)); err != nil {
			return err
		}
	}
	_, err := c.do("SELECT INBOX")
	return err
}

// benchLists lists a mailbox as mail programs do, after it was listed twice: both sides have what they keep for it.
func benchLists(b *bench) ([]row, error) {
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
	var rows []row
	for _, p := range []struct {
		name, addr, pass string
		t                *tree
	}{{"boxd", shoal.imap, shoal.password, shoal.box}, {"Dovecot (Maildir)", dovecot.imap, "bench", dovecot.tree}} {
		c, err := imapLogin(p.addr, "user7@bench.test", p.pass)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", p.name, err)
		}
		defer c.Close()
		if err := c.fill(b.listed); err != nil {
			return rows, fmt.Errorf("%s: %w", p.name, err)
		}
		for _, l := range []struct{ name, command string }{
			{"ENVELOPE", "FETCH 1:* (ENVELOPE)"},
			{"BODYSTRUCTURE", "FETCH 1:* (BODYSTRUCTURE)"},
			{"HEADER.FIELDS, FLAGS, RFC822.SIZE, UID", "FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT MESSAGE-ID REFERENCES CONTENT-TYPE)])"},
			{"SEARCH SUBJECT", "SEARCH SUBJECT \"nowhere to be found\""},
			{"SORT (DATE)", "SORT (DATE) UTF-8 ALL"},
			{"SORT (SUBJECT REVERSE DATE)", "SORT (SUBJECT REVERSE DATE) UTF-8 ALL"},
			{"THREAD REFERENCES", "THREAD REFERENCES UTF-8 ALL"},
		} {
			list := func() error {
				n, err := c.do(l.command)
				if err == nil && n != b.listed && strings.HasPrefix(l.command, "FETCH") {
					err = fmt.Errorf("%s: %d messages of %d", l.name, n, b.listed)
				}
				return err
			}
			for range 2 {
				if err := list(); err != nil {
					return rows, fmt.Errorf("%s, warming up: %w", p.name, err)
				}
			}
			time.Sleep(2 * time.Second) // what is written in the background is not part of it
			m, err := p.t.measure(func() error {
				for range listRuns {
					if err := list(); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return rows, fmt.Errorf("%s: %w", p.name, err)
			}
			r := row{Server: p.name, Load: fmt.Sprintf("%s of %d messages, warm", l.name, b.listed), Values: m.per(listRuns * b.listed)}
			delete(r.Values, "disk flushes per op")
			rows = append(rows, r)
		}
	}
	return rows, nil
}
