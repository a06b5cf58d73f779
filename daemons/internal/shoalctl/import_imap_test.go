package shoalctl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// fakeIMAP answers as a server does. It takes APPENDs with LITERAL+ and keeps what it got. It begins to answer
// APPENDs only when held of them have come, so that a client that waited for each answer would hang.
type fakeIMAP struct {
	conn     net.Conn
	r        *bufio.Reader
	hold     int
	refuse   string // messages that contain this get a NO
	hangUpAt int    // closes at this APPEND, counted from 1
	lines    []string
	contents []string
	created  map[string]bool
	done     chan struct{}
}

func (f *fakeIMAP) serve() {
	defer close(f.done)
	defer f.conn.Close()
	say := func(format string, args ...any) { fmt.Fprintf(f.conn, format+"\r\n", args...) }
	say("* OK ready")
	var held []string
	for {
		line, err := f.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		f.lines = append(f.lines, line)
		tag, command, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(command, "AUTHENTICATE"):
			say("+ ")
			if _, err := f.r.ReadString('\n'); err != nil {
				return
			}
			say("%s OK in", tag)
		case command == "CAPABILITY":
			say("* CAPABILITY IMAP4rev1 LITERAL+ UIDPLUS")
			say("%s OK", tag)
		case strings.HasPrefix(command, "LIST"):
			say(`* LIST (\Noselect) "." ""`)
			say("%s OK", tag)
		case strings.HasPrefix(command, "STATUS"):
			if !f.created[command[:strings.IndexByte(command, '(')]] {
				say("%s NO none of this name", tag)
				break
			}
			say("* STATUS {3}\r\nOld (UIDVALIDITY 1 UIDNEXT 5)")
			say("%s OK", tag)
		case strings.HasPrefix(command, "CREATE"):
			f.created["STATUS"+strings.TrimPrefix(command, "CREATE")+" "] = true
			say("%s OK", tag)
		case strings.HasPrefix(command, "APPEND"):
			var n int
			fmt.Sscanf(command[strings.LastIndexByte(command, '{'):], "{%d+}", &n)
			content := make([]byte, n+2)
			if _, err := io.ReadFull(f.r, content); err != nil {
				return
			}
			f.contents = append(f.contents, string(content[:n]))
			if f.hangUpAt == len(f.contents) {
				say("* BYE tired")
				_ = f.conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, f.r) // a reset could overtake the goodbye
				return
			}
			verdict := "OK [APPENDUID 1 1] done"
			if f.refuse != "" && strings.Contains(string(content), f.refuse) {
				verdict = "NO not this one"
			}
			held = append(held, tag+" "+verdict)
			if len(f.contents) >= f.hold {
				for _, answer := range held {
					say("%s", answer)
				}
				held = nil
			}
		default:
			say("%s OK", tag)
		}
	}
}

func startFake(t *testing.T, f *fakeIMAP) *appender {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f.conn, f.r, f.done, f.created = server, bufio.NewReader(server), make(chan struct{}), map[string]bool{}
	go f.serve()
	a := newAppender(client)
	if err := a.login("alice@example.test", "secret"); err != nil {
		t.Fatal(err)
	}
	return a
}

func message(i int) item {
	return item{mailbox: "INBOX", name: fmt.Sprint(i), content: []byte(fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", i))}
}

func TestAppendsAreUnderWayTogether(t *testing.T) {
	f := &fakeIMAP{hold: 100}
	a := startFake(t, f)
	if validity, next, err := a.create("Old/Mail & more"); err != nil || validity != 1 || next != 5 {
		t.Fatal(validity, next, err)
	}
	var names []string
	a.start(func(it item, stored appendUID, err error) error {
		if err != nil || stored != (appendUID{1, 1}) {
			t.Errorf("message %s: %v, %v", it.name, stored, err)
		}
		names = append(names, it.name)
		return nil
	})
	for i := range 300 {
		it := message(i)
		it.date = time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
		it.flags = []string{`\Seen`, `\Recent`, "$Forwarded", "not an atom"}
		if err := a.append("INBOX", it); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.settle(func() error { _, _, err := a.create("INBOX/Später"); return err }); err != nil {
		t.Fatal(err)
	}
	if err := a.finish(); err != nil {
		t.Fatal(err)
	}
	<-f.done
	if len(names) != 300 || names[0] != "0" || names[299] != "299" {
		t.Errorf("%d answers, not 300 in order", len(names))
	}
	if f.contents[7] != "Subject: 7\r\n\r\nbody\r\n" {
		t.Errorf("the server got %q", f.contents[7])
	}
	all := strings.Join(f.lines, "\n")
	for _, want := range []string{
		`CREATE "Old.Mail &- more"`, `CREATE "INBOX.Sp&AOQ-ter"`, `SUBSCRIBE "INBOX.Sp&AOQ-ter"`,
		`APPEND "INBOX" (\Seen $Forwarded) "23-Nov-2026 01:02:03 +0000" {20+}`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the server did not get %s", want)
		}
	}
}

func TestRefusedMessageDoesNotStopTheOthers(t *testing.T) {
	a := startFake(t, &fakeIMAP{refuse: "Subject: 3\r"})
	outcome := map[string]error{}
	a.start(func(it item, _ appendUID, err error) error { outcome[it.name] = err; return nil })
	for i := range 6 {
		if err := a.append("INBOX", message(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.finish(); err != nil {
		t.Fatal(err)
	}
	if len(outcome) != 6 || outcome["2"] != nil || outcome["4"] != nil {
		t.Errorf("outcomes: %v", outcome)
	}
	if err := outcome["3"]; !errors.As(err, &refusal{}) || !strings.Contains(err.Error(), "not this one") {
		t.Errorf("got %v, want the server's refusal", err)
	}
}

func TestLostConnectionIsTheServersWord(t *testing.T) {
	a := startFake(t, &fakeIMAP{hangUpAt: 5})
	acknowledged := 0
	a.start(func(item, appendUID, error) error { acknowledged++; return nil })
	var err error
	for i := 0; err == nil && i < 10000; i++ {
		err = a.append("INBOX", message(i))
	}
	if finished := a.finish(); err == nil {
		err = finished
	}
	if err == nil || !strings.Contains(err.Error(), "tired") {
		t.Errorf("got %v, want the server's goodbye", err)
	}
	if acknowledged != 4 {
		t.Errorf("%d messages were reported, the server acknowledged 4", acknowledged)
	}
}
