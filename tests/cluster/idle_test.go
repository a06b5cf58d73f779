package cluster

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// watcher is a client in IDLE at one box; what it is told arrives on the channels, with the moment.
type watcher struct {
	box      string
	exists   chan told
	flags    chan told
	expunged chan told
	idle     *imapclient.IdleCommand
}

type told struct {
	n  uint32 // messages there are, or the number of the one that changed
	at time.Time
}

func (s *service) watch(t *testing.T, u user, box string) *watcher {
	t.Helper()
	w := &watcher{box: box, exists: make(chan told, 1000), flags: make(chan told, 1000), expunged: make(chan told, 1000)}
	c := s.imap(t, u, box, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				w.exists <- told{*data.NumMessages, time.Now()}
			}
		},
		Fetch: func(m *imapclient.FetchMessageData) {
			at := time.Now()
			number := m.SeqNum
			for item := m.Next(); item != nil; item = m.Next() {
				if f, ok := item.(imapclient.FetchItemDataFlags); ok && slices.Contains(f.Flags, imap.FlagFlagged) {
					w.flags <- told{number, at}
				}
			}
		},
		Expunge: func(number uint32) { w.expunged <- told{number, time.Now()} },
	}})
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatalf("%s: select: %v", box, err)
	}
	idle, err := c.Idle()
	if err != nil {
		t.Fatalf("%s: idle: %v", box, err)
	}
	w.idle = idle
	return w
}

// delays of one kind of change, as the clients at one box saw it.
type delays map[string][]time.Duration

func (d delays) expect(t *testing.T, what string, ch chan told, n uint32, since time.Time) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case got := <-ch:
			if got.n == n && got.at.After(since) { // not what an earlier change has left
				d[what] = append(d[what], got.at.Sub(since))
				return
			}
		case <-limit:
			t.Fatalf("%s: message %d was not told within 10 s", what, n)
		}
	}
}

// Two boxes, one mailbox, a client in IDLE at each: what one box does appears at the other.
func TestChangesAppearAtTheOtherBox(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	watchers := []*watcher{s.watch(t, u, "box1"), s.watch(t, u, "box2")}
	measured := delays{}
	const rounds = 20
	for i := range uint32(rounds) {
		before := time.Now()
		c, err := dialSMTP(s.address("smtp"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.begin("sender@example.org", u.Address); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c.conn, message(fmt.Sprint("idle-", i), 1000)+".\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadResponse(250); err != nil {
			t.Fatal(err)
		}
		c.Close()
		for _, w := range watchers {
			measured.expect(t, "delivery (from the end of the data)", w.exists, i+1, before)
		}
	}
	for n, box := range []string{"box1", "box2"} {
		other := watchers[1-n]
		actor := s.imap(t, u, box, nil)
		if _, err := actor.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		first := uint32(1 + n*rounds/2)
		for i := first; i < first+rounds/2; i++ {
			before := time.Now()
			store := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged}}
			if err := actor.Store(imap.SeqSetNum(i), store, nil).Close(); err != nil {
				t.Fatal(err)
			}
			measured.expect(t, "flag change, "+box+" to "+other.box, other.flags, i, before)
		}
	}
	for n, box := range []string{"box1", "box2"} {
		other := watchers[1-n]
		actor := s.imap(t, u, box, nil)
		if _, err := actor.Select("INBOX", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		for range rounds / 2 {
			before := time.Now()
			store := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
			if err := actor.Store(imap.SeqSetNum(1), store, nil).Close(); err != nil {
				t.Fatal(err)
			}
			if err := actor.Expunge().Close(); err != nil {
				t.Fatal(err)
			}
			measured.expect(t, "expunge, "+box+" to "+other.box, other.expunged, 1, before)
		}
	}
	for _, w := range watchers {
		if err := w.idle.Close(); err != nil {
			t.Errorf("%s: end of idle: %v", w.box, err)
		}
	}
	for what, all := range measured {
		slices.Sort(all)
		t.Logf("%s: median %v, most %v of %d", what, all[len(all)/2].Round(time.Microsecond*100), all[len(all)-1].Round(time.Microsecond*100), len(all))
		if most := all[len(all)-1]; most > 2*time.Second {
			t.Errorf("%s: %v is no notification, it is the slow re-check", what, most)
		}
	}
}

// With nobody at the mailbox, a delivery tells nobody.
func TestNoHintWithoutAClient(t *testing.T) {
	s := shared(t)
	watched, alone := s.newAccount(t), s.newAccount(t)
	before := s.hintsSent(t)
	for i := range 10 {
		s.curlSend(t, alone.Address, message(fmt.Sprint("alone-", i), 500))
	}
	if sent := s.hintsSent(t) - before; sent != 0 {
		t.Errorf("%v hints were sent for a mailbox that no client has open", sent)
	}
	// The counter does count: the same with a client at each box.
	s.watch(t, watched, "box1")
	s.watch(t, watched, "box2")
	for i := range 10 {
		s.curlSend(t, watched.Address, message(fmt.Sprint("watched-", i), 500))
	}
	wait(t, 10*time.Second, func() bool { return s.hintsSent(t) > before }, func() string { return "hints for a mailbox that is open at the other box" })
}

// hintCounter is the metric of the hints that a box has sent.
const hintCounter = "shoal_hint_sent_total"

// hintsSent adds up the counter of both boxes.
func (s *service) hintsSent(t *testing.T) float64 {
	t.Helper()
	return s.metric(t, "box1", hintCounter) + s.metric(t, "box2", hintCounter)
}

// metric adds up the samples of a metric at one server. It must be there.
func (s *service) metric(t *testing.T, server, name string) float64 {
	t.Helper()
	response, err := http.Get("http://" + s.address("management", server) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	sum, found := 0.0, false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		sum, found = sum+value, true
	}
	if !found {
		t.Fatalf("%s has no metric %s", server, name)
	}
	return sum
}
