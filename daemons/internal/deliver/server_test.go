package deliver

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is an LMTP server whose faults are scripted: reply(event) is asked before each reply. Events are
// connect, LHLO, MAIL, RCPT <address>, DATA, BDAT (a chunk that is not the last), END <address>. It returns
// the reply, "" for the ordinary one, "!" to close the connection instead, or a reply and "!" to close after it.
type server struct {
	addr  string
	l     net.Listener
	dots  bool // without CHUNKING
	plain bool // without any extension
	reply func(event string) string

	mu    sync.Mutex
	conns int
	got   []delivery
	mails []string // the MAIL commands
}

type delivery struct{ rcpt, text string }

func newServer(t testing.TB, s *server) *server {
	t.Helper()
	var err error
	if s.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.addr = s.l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := s.l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				s.serve(c)
			})
		}
	})
	t.Cleanup(func() { s.l.Close(); wg.Wait() })
	return s
}

func (s *server) deliveries() []delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]delivery(nil), s.got...)
}

func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

func (s *server) serve(c net.Conn) {
	r := bufio.NewReader(c)
	say := func(event, ordinary string, before ...func()) (code string, ok bool) {
		line := ""
		if s.reply != nil {
			s.mu.Lock()
			line = s.reply(event)
			s.mu.Unlock()
		}
		line, end := strings.CutSuffix(line, "!")
		if line == "" && !end {
			line = ordinary
		}
		if strings.HasPrefix(line, "250") {
			for _, f := range before {
				f()
			}
		}
		if line != "" {
			io.WriteString(c, line+"\r\n")
		}
		return line, !end
	}
	if _, ok := say("connect", "220 box LMTP"); !ok {
		return
	}
	var rcpts []string
	var text strings.Builder
	end := func() bool {
		for _, a := range rcpts {
			_, ok := say("END "+a, "250 2.0.0 <"+a+"> stored", func() {
				s.mu.Lock()
				s.got = append(s.got, delivery{a, text.String()})
				s.mu.Unlock()
			})
			if !ok {
				return false
			}
		}
		rcpts, text = nil, strings.Builder{}
		return true
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		verb, arg, _ := strings.Cut(line, " ")
		ok := true
		switch verb {
		case "LHLO":
			caps := "250-box\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING"
			if s.dots {
				caps = strings.Replace(caps, "250 CHUNKING", "250 HELP", 1)
			}
			if s.plain {
				caps = "250 box"
			}
			_, ok = say("LHLO", caps)
		case "MAIL":
			s.mu.Lock()
			s.mails = append(s.mails, arg)
			s.mu.Unlock()
			_, ok = say("MAIL", "250 2.1.0 Ok")
		case "RCPT":
			a := strings.TrimSuffix(strings.TrimPrefix(arg, "TO:<"), ">")
			var answer string
			if answer, ok = say("RCPT "+a, "250 2.1.5 Ok"); strings.HasPrefix(answer, "250") {
				rcpts = append(rcpts, a)
			}
		case "RSET":
			rcpts, text = nil, strings.Builder{}
			_, ok = say("RSET", "250 2.0.0 Ok")
		case "NOOP":
			_, ok = say("NOOP", "250 2.0.0 Ok")
		case "BDAT":
			size, last, _ := strings.Cut(arg, " ")
			n, _ := strconv.Atoi(size)
			if _, err := io.CopyN(&text, r, int64(n)); err != nil {
				return
			}
			if last == "LAST" {
				ok = end()
			} else {
				_, ok = say("BDAT", "250 2.0.0 Go on")
			}
		case "DATA":
			var answer string
			if answer, ok = say("DATA", "354 Go on"); !strings.HasPrefix(answer, "354") {
				break
			}
			for {
				l, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(l, "."))
			}
			ok = end()
		default:
			fmt.Fprintf(c, "500 5.5.2 %s\r\n", verb)
		}
		if !ok {
			return
		}
	}
}
