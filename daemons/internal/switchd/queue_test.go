package switchd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/vfs"
)

const queueID = "6f0c1f0e-90b4-4a0e-8c7e-0d0a5d2f8a11"

// withQueue is the part of a configuration about the queue, which it makes; smart is where mail for others goes.
func (s *site) withQueue(smart string) string {
	s.t.Helper()
	if err := os.Mkdir(s.path("queue"), 0o700); !errors.Is(err, os.ErrExist) {
		must(s.t, err)
		must(s.t, queue.Init(vfs.OS(), s.path("queue"), queueID))
	}
	return fmt.Sprintf("queue {\n  path = \"queue\"\n  id   = %q\n  beat = \"100ms\"\n  dead_after = \"5s\"\n}\noutbound {\n  smart_host = %q\n}\n", queueID, smart)
}

// far is another mail system: what it takes comes out of the channel, "sender recipients" on the first line.
func far(t *testing.T) (address string, arrived chan string) {
	t.Helper()
	arrived = make(chan string, 100)
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &farSession{arrived: arrived}, nil }))
	srv.Domain = "mx.far.test"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String(), arrived
}

type farSession struct {
	arrived  chan string
	from, to string
}

func (s *farSession) Mail(from string, _ *smtp.MailOptions) error {
	s.from, s.to = from, ""
	return nil
}

func (s *farSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "refused@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody of that name"}
	}
	s.to += " " + to
	return nil
}

func (s *farSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err == nil {
		s.arrived <- s.from + s.to + "\n" + string(b)
	}
	return err
}

func (s *farSession) Reset()        {}
func (s *farSession) Logout() error { return nil }

// submit sends a message of alice's; to holds RCPT's arguments without "TO:", and wants all of them taken.
func submit(to ...string) string {
	var b strings.Builder
	b.WriteString(`
open 1 submissions
S1: 220 {{.*}}
C1: EHLO client.test
S1~: 250 {{.*}}
C1: AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABwYXNzd29yZCBvZiBhbGljZQ==
S1: 235 {{.*}}
C1: MAIL FROM:<alice@example.test>
S1: 250 {{.*}}
`)
	for _, r := range to {
		fmt.Fprintf(&b, "C1: RCPT TO:%s\nS1: 250 {{.*}}\n", r)
	}
	b.WriteString(`C1: DATA
S1: 354 {{.*}}
C1!: Subject: sent\r\n\r\nhello\r\n.\r\n
S1: 250 2.0.0 {{.*}}
C1: QUIT
S1: 221 {{.*}}
eof 1
`)
	return b.String()
}

// call asks the control API of a switch.
func call(t *testing.T, mux *http.ServeMux, method, path string, want int, into any) {
	t.Helper()
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	if w.Code != want {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	if into != nil {
		must(t, json.Unmarshal(w.Body.Bytes(), into))
	}
}

// page is an answer of GET /v1/queue.
type page struct {
	Server  string
	Total   int
	Entries []queue.Info
}

// Users send to other systems, to aliases and to forwards; refusals come back as reports.
func TestRelay(t *testing.T) {
	s := newSite(t)
	s.startVault()
	a := s.fill()
	s.startBox("1")
	address, arrived := far(t)
	s.startSwitch("hostname = \"mx1.example.test\"\n" + lmtp(s.ports["lmtp1"]) + s.withQueue(address))
	_, err := a.AddAlias(t.Context(), dirclient.NewAlias{Addresses: []string{"team@example.test"}, Targets: []string{"bob@example.test", "carol@far.test"}})
	must(t, err)
	must(t, a.SetForward(t.Context(), "bob@example.test", true, "bob@far.test"))

	s.play(submit("<dan@far.test>", "<refused@far.test>"))
	contains(t, <-arrived, "alice@example.test dan@far.test\n", "Received: from client.test", "with ESMTPSA", "Subject: sent")
	until(t, func() error {
		if got := s.inbox(a, "alice@example.test"); len(got) != 1 || !strings.Contains(got[0], "550 5.1.1 nobody of that name") || !strings.Contains(got[0], "Return-Path: <>") {
			return fmt.Errorf("no report: %q", got)
		}
		return nil
	})

	s.play(`
open 1 smtp
S1: 220 {{.*}}
C1: EHLO client.test
S1~: 250 {{.*}}
C1!: MAIL FROM:<you@example.org>\r\nRCPT TO:<team@example.test>\r\nRCPT TO:<x@far.test>\r\nDATA\r\n
S1: 250 {{.*}}
S1: 250 {{.*}}
S1: 550 5.7.1 Relaying denied
S1: 354 {{.*}}
C1!: Subject: to the team\r\n\r\nhello\r\n.\r\n
S1: 250 2.0.0 Queued, id {{.*}}
`)
	contains(t, <-arrived, "you@example.org bob@far.test carol@far.test\nDelivered-To: team@example.test", "Subject: to the team")
	until(t, func() error {
		if got := s.inbox(a, "bob@example.test"); len(got) != 1 || !strings.Contains(got[0], "Subject: to the team") {
			return fmt.Errorf("bob has %q", got)
		}
		return nil
	})
	if strings.Contains(s.log.String(), "level=ERROR") {
		t.Errorf("errors:\n%s", s.log)
	}
}

// While the boxes are away mail is taken; an operator sees it, and it is delivered when they are back.
func TestQueueWhileBoxesAreAway(t *testing.T) {
	s := newSite(t)
	s.startVault()
	a := s.fill()
	must(t, a.AddServer(t.Context(), dirclient.NewServer{Name: "switch2", Role: pki.RoleSwitch, Password: "service secret"}))
	text := lmtp(s.ports["lmtp1"]) + s.withQueue(s.ports["nobody"])
	w := s.startSwitch("hostname = \"mx1.example.test\"\n" + text)
	s.play(strings.Replace(sendToAlice, "Delivered", "Queued", 1))
	s.play(submit("<bob@example.test>"))
	s.play(submit("<x@far.test> NOTIFY=NEVER"))

	var list page
	call(t, w.control, "GET", "/v1/queue?limit=10", 200, &list)
	if list.Server != "switch1" || list.Total != 3 || len(list.Entries) != 3 || list.Entries[0].From != "you@example.org" || list.Entries[2].Recipients[0].Notify != "NEVER" {
		t.Fatalf("%+v", list)
	}
	id := list.Entries[0].ID
	var one struct {
		queue.Info
		Headers string
	}
	call(t, w.control, "GET", "/v1/queue/"+id, 200, &one)
	if one.Recipients[0].Address != "alice.alias@example.test" || !strings.Contains(one.Headers, "Subject: hello") || strings.Contains(one.Headers, "\n\r\n") {
		t.Errorf("%+v", one)
	}
	if got := fmt.Sprint(w.Status(t.Context())["queue"]); !strings.Contains(got, "entries:3") {
		t.Errorf("status says %s", got)
	}
	call(t, w.control, "GET", "/v1/queue?limit=x", 400, nil)
	call(t, w.control, "GET", "/v1/queue/nonsense", 404, nil)
	call(t, w.control, "POST", "/v1/queue/switch1.abc.1.0/retry", 404, nil)
	until(t, func() error { // it may be being tried
		answer := httptest.NewRecorder()
		w.control.ServeHTTP(answer, httptest.NewRequest("DELETE", "/v1/queue/"+list.Entries[2].ID, nil))
		if answer.Code != 200 {
			return fmt.Errorf("delete: %d %s", answer.Code, answer.Body)
		}
		return nil
	})

	// The switch ends; another one, on the same folder, goes on with what it left.
	w.stop()
	s.startBox("1")
	other := s.start(Spec(), pki.RoleSwitch, "switch2", fmt.Sprintf("listener \"smtp\" { address = %q }\n", s.ports["smtp"])+text)
	until(t, func() error {
		for _, who := range []string{"alice", "bob"} {
			if got := s.inbox(a, who+"@example.test"); len(got) != 1 {
				var retried map[string]int
				call(t, other.control, "POST", "/v1/queue/retry", 200, &retried)
				return fmt.Errorf("%s has %q", who, got)
			}
		}
		return nil
	})
	until(t, func() error {
		call(t, other.control, "GET", "/v1/queue", 200, &list)
		if list.Total != 0 {
			return fmt.Errorf("left in the queue: %+v", list)
		}
		return nil
	})
}
