package boxd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/vaultd"
	"shoal/tests/ports"
)

// running is a role in this process.
type running struct {
	env     *kit.Env
	service kit.Service
	stop    func() // ends it; once is enough
}

// run builds and runs a role from the configuration text.
func (s *site) run(t *testing.T, spec kit.Spec, name, text string) *running {
	t.Helper()
	file := s.path(name + ".hcl")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	config := spec.NewConfig()
	must(t, conf.Load(file, config))
	r := &running{env: &kit.Env{
		Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})), Metrics: prometheus.NewRegistry(), Clock: clock.System(), Server: name, Boot: "1",
		Creds: s.creds(name),
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	r.service, err = spec.Build(ctx, r.env, config)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- r.service.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		must(t, <-done)
		must(t, r.service.Close())
	})
	t.Cleanup(r.stop)
	return r
}

// testLog shows the log of a failed test.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (s *site) creds(name string) *pki.Credentials {
	s.t.Helper()
	c, err := pki.Load(pki.Files{Cert: s.path(name + ".crt"), Key: s.path(name + ".key"), CA: s.path("ca.crt")})
	must(s.t, err)
	return c
}

// runVault runs a directory at s.directory; started again it has the same content.
func (s *site) runVault(t *testing.T) *running {
	t.Helper()
	s.issue(s.ca, "vault1", pki.Request{Role: pki.RoleVault, Name: "vault1"})
	must(t, pki.WriteFile(s.path("root"), []byte("root secret"), 0o600))
	return s.run(t, vaultd.Spec(), "vault1", fmt.Sprintf(`server { name = "vault1" }
identity {
  cert_file = "vault1.crt"
  key_file  = "vault1.key"
  ca_file   = "ca.crt"
}
root { password_file = "root" }
database { path = "db" }
listener "ldaps" {
  address = "%s"
  tls     = true
}
`, s.directory))
}

// startVault is runVault with the boxes of hints, the volume and alice put in.
func (s *site) startVault(t *testing.T, hints map[string]string) *running {
	t.Helper()
	v := s.runVault(t)
	a, err := dirclient.Connect(t.Context(), dirclient.AdminOptions{
		URIs: []string{"ldaps://" + s.directory}, TLS: s.creds("box1").ClientTLS(pki.RoleVault), DN: dirclient.AdminDN("o=shoal"), Password: "root secret",
	})
	must(t, err)
	defer a.Close()
	for name, hint := range hints {
		must(t, a.AddServer(t.Context(), dirclient.NewServer{
			Name: name, Role: "box", Password: "service secret", Addresses: map[string][]string{dirclient.ServiceHint: {hint}},
		}))
	}
	must(t, a.AddVolume(t.Context(), dirclient.NewVolume{Name: "vol01", ID: volumeID}))
	_, err = a.AddDomain(t.Context(), dirclient.NewDomain{Name: "example.test", DefaultVolume: "vol01"})
	must(t, err)
	_, err = a.AddAccount(t.Context(), dirclient.NewAccount{Address: "alice@example.test", Password: "wonderland"})
	must(t, err)
	return v
}

// deliver hands a message for alice to a box, as a switch does.
func (s *site) deliver(t *testing.T, lmtp string) error {
	t.Helper()
	if _, err := os.Stat(s.path("switch1.crt")); err != nil {
		s.issue(s.ca, "switch1", pki.Request{Role: pki.RoleSwitch, Name: "switch1"})
	}
	set := deliver.DefaultSettings()
	set.Addresses = []string{lmtp}
	tr, err := deliver.New(deliver.Options{Settings: set, TLS: s.creds("switch1").ClientTLS(pki.RoleBox), Name: "switch1"})
	must(t, err)
	defer func() { must(t, tr.Close()) }()
	x, err := tr.Begin(t.Context(), deliver.Envelope{EnvID: "trace1"})
	if err != nil {
		return err
	}
	defer x.Close()
	a, err := mailaddr.Parse("alice@example.test")
	must(t, err)
	if err := x.Rcpt(a); err != nil {
		return err
	}
	results, err := x.Data(strings.NewReader("Subject: hello\r\n\r\nhello\r\n"))
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	return err
}

// sum adds up a metric of a role over its labels.
func (r *running) sum(t *testing.T, name string) (total float64) {
	t.Helper()
	families, err := r.env.Metrics.Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return total
}

// client is an IMAP client that notes what it is told.
type client struct {
	*imapclient.Client
	t *testing.T

	mu       sync.Mutex
	exists   uint32
	expunged []uint32
	flags    map[uint32][]imap.Flag
	told     chan struct{}
}

// dialIMAP logs alice in and selects her INBOX.
func dialIMAP(t *testing.T, addr string) *client {
	t.Helper()
	c := connectIMAP(t, addr)
	must(t, c.Login("alice@example.test", "wonderland").Wait())
	_, err := c.Select("INBOX", nil).Wait()
	must(t, err)
	return c
}

func connectIMAP(t *testing.T, addr string) *client {
	t.Helper()
	c := &client{t: t, flags: map[uint32][]imap.Flag{}, told: make(chan struct{}, 1000)}
	var err error
	c.Client, err = imapclient.DialTLS(addr, &imapclient.Options{
		TLSConfig: &tls.Config{InsecureSkipVerify: true},
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{
			Mailbox: func(d *imapclient.UnilateralDataMailbox) {
				if d.NumMessages != nil {
					c.note(func() { c.exists = *d.NumMessages })
				}
			},
			Expunge: func(n uint32) { c.note(func() { c.expunged = append(c.expunged, n) }) },
			Fetch: func(m *imapclient.FetchMessageData) {
				b, err := m.Collect()
				if err == nil {
					c.note(func() { c.flags[b.SeqNum] = b.Flags })
				}
			},
		},
	})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // it may be closed already
	return c
}

func (c *client) note(f func()) {
	c.mu.Lock()
	f()
	c.mu.Unlock()
	c.told <- struct{}{}
}

// until waits for the server to tell what cond wants.
func (c *client) until(what string, cond func() bool) {
	c.t.Helper()
	late := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		ok := cond()
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-c.told:
		case <-late:
			c.t.Fatalf("the client was not told: %s", what)
		}
	}
}

// idle runs IDLE until the returned function is called.
func (c *client) idle() (stop func()) {
	c.t.Helper()
	cmd, err := c.Idle()
	must(c.t, err)
	return func() {
		c.t.Helper()
		must(c.t, cmd.Close())
		must(c.t, cmd.Wait())
	}
}

// TestTwoBoxes: a directory, two boxes on one volume, a client with IDLE on each. What happens through one box is told by
// the other, by a hint (the slow re-check is an hour away). Without clients no hint is sent.
func TestTwoBoxes(t *testing.T) {
	s := newSite(t)
	s.replace("drain {", "store {\n  recheck = \"1h\"\n}\ndrain {")
	s.issue(s.ca, "box2", pki.Request{Role: pki.RoleBox, Name: "box2"})
	at := ports.Take(t, 5)
	lmtp2, imaps2, hint2 := at[0], at[1], at[2]
	second := strings.NewReplacer("box1", "box2", s.imap, at[3], s.imaps, imaps2, s.lmtp, lmtp2, s.hint, hint2, s.manage, at[4]).Replace(s.text)
	s.startVault(t, map[string]string{"box1": s.hint, "box2": hint2})
	box1, box2 := s.run(t, Spec(), "box1", s.text), s.run(t, Spec(), "box2", second)
	boxes := []*running{box1, box2}
	for _, b := range boxes {
		must(t, b.service.Ready(t.Context()))
	}

	deliverTo := func(lmtp string) {
		t.Helper()
		must(t, s.deliver(t, lmtp))
	}
	for range 5 {
		deliverTo(s.lmtp)
		deliverTo(lmtp2)
	}
	for i, b := range boxes {
		if n := b.sum(t, "shoal_hint_sent_total"); n != 0 {
			t.Errorf("box%d sent %v hints although nobody watched", i+1, n)
		}
	}

	one, two := dialIMAP(t, s.imaps), dialIMAP(t, imaps2)
	stop1, stop2 := one.idle(), two.idle()
	measure := func(what string, c *client, do func(), cond func() bool) {
		t.Helper()
		start := time.Now()
		do()
		c.until(what, cond)
		t.Logf("%s: told after %v", what, time.Since(start))
	}
	measure("delivery through box1, at box2", two, func() { deliverTo(s.lmtp) }, func() bool { return two.exists == 11 })
	one.until("delivery through box1, at box1", func() bool { return one.exists == 11 })
	measure("delivery through box2, at box1", one, func() { deliverTo(lmtp2) }, func() bool { return one.exists == 12 })
	two.until("delivery through box2, at box2", func() bool { return two.exists == 12 })

	flag := func(c *client, n uint32, f imap.Flag) func() {
		return func() {
			t.Helper()
			must(t, c.Store(imap.SeqSetNum(n), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{f}}, nil).Close())
		}
	}
	has := func(c *client, n uint32, f imap.Flag) func() bool {
		return func() bool { return slices.Contains(c.flags[n], f) }
	}
	stop1()
	measure("flag through box1, at box2", two, flag(one, 3, imap.FlagFlagged), has(two, 3, imap.FlagFlagged))
	measure("\\Deleted through box1, at box2", two, flag(one, 5, imap.FlagDeleted), has(two, 5, imap.FlagDeleted))
	measure("expunge through box1, at box2", two, func() { must(t, one.Expunge().Close()) }, func() bool { return slices.Equal(two.expunged, []uint32{5}) })
	stop2()
	stop1 = one.idle()
	measure("flag through box2, at box1", one, flag(two, 4, imap.FlagSeen), has(one, 4, imap.FlagSeen))
	measure("\\Deleted through box2, at box1", one, flag(two, 1, imap.FlagDeleted), has(one, 1, imap.FlagDeleted))
	measure("expunge through box2, at box1", one, func() { must(t, two.Expunge().Close()) }, func() bool { return slices.Equal(one.expunged, []uint32{1}) })
	stop1()

	for i, b := range boxes {
		if sent, dropped := b.sum(t, "shoal_hint_sent_total"), b.sum(t, "shoal_hint_dropped_total"); sent == 0 || dropped != 0 {
			t.Errorf("box%d: %v hints sent, %v dropped", i+1, sent, dropped)
		}
		if n := b.sum(t, "shoal_hint_refused_total"); n != 0 {
			t.Errorf("box%d refused %v hints", i+1, n)
		}
	}
	// The clients go. As soon as their boxes have taken back their interest, nothing is sent any more.
	must(t, one.Logout().Wait())
	must(t, two.Logout().Wait())
	quiet := func() error {
		before := box1.sum(t, "shoal_hint_sent_total") + box2.sum(t, "shoal_hint_sent_total")
		deliverTo(s.lmtp)
		deliverTo(lmtp2)
		if after := box1.sum(t, "shoal_hint_sent_total") + box2.sum(t, "shoal_hint_sent_total"); after != before {
			return fmt.Errorf("%v hints were sent to nobody", after-before)
		}
		return nil
	}
	var err error
	for range 20 {
		if err = quiet(); err == nil {
			break
		}
	}
	must(t, err)

	status := box1.service.Status(t.Context())
	if status["directory"] != "ok" || status["volumes"].(map[string]string)["vol01"] != "ok" || len(status["problems"].([]string)) != 0 {
		t.Errorf("status %v", status)
	}
}

// A box on its way out says goodbye to clients that wait, and leaves no interest behind.
func TestDrain(t *testing.T) {
	s := newSite(t)
	s.startVault(t, map[string]string{"box1": s.hint})
	box1 := s.run(t, Spec(), "box1", s.text)
	c := dialIMAP(t, s.imaps)
	idle, err := c.Idle()
	must(t, err)
	interest := func() []string {
		found, err := filepath.Glob(s.path("vol01", "a", "*", "*", "b", "*", "w", "box1.*"))
		must(t, err)
		return found
	}
	if len(interest()) != 1 {
		t.Errorf("interest while the client watches: %v", interest())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, box1.service.Drain(ctx))
	if err := idle.Wait(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the client was told nothing: %v", err)
	}
	<-c.Closed()
	if _, err := tls.Dial("tcp", s.imaps, &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("connections are still accepted")
	}
	box1.stop()
	if len(interest()) != 0 {
		t.Errorf("interest is left behind: %v", interest())
	}
}

// The directory dies under a box that has seen it: who is known goes on, who is not is told to come again, and nothing
// has to be restarted when it is back.
func TestDirectoryDies(t *testing.T) {
	s := newSite(t)
	vault := s.startVault(t, map[string]string{"box1": s.hint})
	box1 := s.run(t, Spec(), "box1", s.text)
	must(t, s.deliver(t, s.lmtp))
	dialIMAP(t, s.imaps)
	must(t, box1.service.Ready(t.Context()))
	vault.stop()

	must(t, box1.service.Ready(t.Context()))
	if said := box1.service.Status(t.Context())["directory"]; said == "ok" {
		t.Error("the status says nothing of it")
	}
	must(t, s.deliver(t, s.lmtp))
	if n := dialIMAP(t, s.imaps).Mailbox().NumMessages; n != 2 {
		t.Errorf("%d messages", n)
	}
	var refused *imap.Error
	err := connectIMAP(t, s.imaps).Login("bob@example.test", "wonderland").Wait()
	if !errors.As(err, &refused) || refused.Code != imap.ResponseCodeUnavailable {
		t.Errorf("an unknown user without directory: %v", err)
	}

	s.runVault(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; box1.service.Status(t.Context())["directory"] != "ok"; i++ {
		if i == 4000 {
			t.Fatal("the directory is back, and the box does not notice")
		}
		<-tick.C
	}
	err = connectIMAP(t, s.imaps).Login("bob@example.test", "wonderland").Wait()
	if !errors.As(err, &refused) || refused.Code != imap.ResponseCodeAuthenticationFailed {
		t.Errorf("an unknown user when the directory is back: %v", err)
	}
}

// What the directory says about this box is compared with what the configuration says.
func TestDirectoryDiffers(t *testing.T) {
	s := newSite(t)
	s.startVault(t, map[string]string{"box1": "127.0.0.1:1"})
	s.replace(`volume "vol01"`, `volume "vol02"`)
	s.replace("drain {", `volume "vol01" {
  path = "other"
  id   = "11111111-2222-3333-4444-555555555555"
}
drain {`)
	must(t, os.MkdirAll(s.path("other"), 0o700))
	must(t, os.WriteFile(s.path("other", "shoal-volume"), []byte("shoal-volume 1.0\nid 11111111-2222-3333-4444-555555555555\n"), 0o600))
	box1 := s.run(t, Spec(), "box1", s.text)
	w := box1.service.(*box).watch
	problems, fatal, err := w.look(t.Context())
	must(t, err)
	if fatal == nil || !strings.Contains(fatal.Error(), volumeID) {
		t.Errorf("a volume with another id: %v", fatal)
	}
	all := strings.Join(problems, "\n")
	if !strings.Contains(all, "hint "+s.hint) {
		t.Errorf("the hint address is not missed: %v", problems)
	}
}
