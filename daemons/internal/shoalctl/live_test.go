package shoalctl

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/imapsession"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/sasl"
	"shoal/daemons/internal/vfs"
)

// asShoalctl in the environment makes the test program be shoalctl, so that a test can kill it.
const asShoalctl = "SHOALCTL_TEST_AS_SHOALCTL"

func TestMain(m *testing.M) {
	if os.Getenv(asShoalctl) != "" {
		os.Exit(Main(os.Args[1:], "test", os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// liveIMAP is a real IMAP service on a real store. Every account has the password "secret".
type liveIMAP struct {
	*site
	c   *IMAP
	srv *imapsession.Server
}

type anyAccount struct{ sasl.Authenticator }

func (anyAccount) Watch(*authn.Grant, func(string)) func() { return func() {} }

func (anyAccount) Password(_ context.Context, from authn.From, user, password string) (*authn.Grant, error) {
	if password != "secret" {
		return nil, authn.ErrBadCredentials
	}
	name, _, _ := strings.Cut(user, "@")
	account := &dirclient.Account{Address: user, ID: "account-" + name, Volume: "vol01", Status: dirclient.StatusActive}
	return &authn.Grant{From: from, Account: account}, nil
}

func newLive(t *testing.T) *liveIMAP {
	t.Helper()
	s := newSite(t)
	public := s.issue("public", pki.Request{Hosts: []string{"127.0.0.1"}})
	config, err := pki.LoadPublic(public.Cert, public.Key)
	if err != nil {
		t.Fatal(err)
	}
	const volumeID = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"
	log := slog.New(slog.DiscardHandler)
	store, err := mailstore.New(mailstore.Options{Server: "box1", FS: vfs.OS(), Clock: clock.System(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	volume := t.TempDir()
	if err := mailstore.InitVolume(vfs.OS(), volume, volumeID); err != nil {
		t.Fatal(err)
	}
	if err := store.AddVolume("vol01", volume, volumeID); err != nil {
		t.Fatal(err)
	}
	srv, err := imapsession.New(imapsession.Options{Store: store, Auth: anyAccount{}, TLS: config, Server: "box1", Version: "test", Log: log, Limits: imapsession.DefaultLimits()})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.ServeTLS(listener)
	t.Cleanup(func() { srv.Close() })
	l := &liveIMAP{site: s, srv: srv, c: &IMAP{Address: listener.Addr().String(), CAFile: s.path("ca.crt")}}
	s.configure("imap {\n  address = \"" + l.c.Address + "\"\n  ca_file = \"" + l.c.CAFile + "\"\n}\n")
	t.Setenv("XDG_STATE_HOME", s.path("state"))
	t.Setenv("SHOAL_DATA", s.path("none"))
	return l
}

// as is a command of shoalctl run as a process of its own.
func (l *liveIMAP) as(args ...string) *exec.Cmd {
	l.t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"--config", l.config}, args...)...)
	cmd.Env = append(os.Environ(), asShoalctl+"=1")
	return cmd
}

// reader logs in.
func (l *liveIMAP) reader(user string) *imapReader {
	l.t.Helper()
	r, err := openIMAP(l.c, user, "secret")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(r.close)
	return r
}

// whole is a message with its content.
type whole struct {
	storedMessage
	content string
}

// contents reads a mailbox.
func (l *liveIMAP) contents(user, mailbox string) []whole {
	l.t.Helper()
	r := l.reader(user)
	if err := r.open(&mailboxView{name: mailbox, raw: mailbox}); err != nil {
		l.t.Fatal(err)
	}
	all, err := r.messages(1)
	if err != nil {
		l.t.Fatal(err)
	}
	var uids []imap.UID
	for _, m := range all {
		uids = append(uids, m.uid)
	}
	var found []whole
	if err := r.contents(uids, func(m storedMessage, body io.Reader) error {
		text, err := io.ReadAll(body)
		found = append(found, whole{m, string(text)})
		return err
	}); err != nil {
		l.t.Fatal(err)
	}
	return found
}

// put appends messages as another client would.
func (l *liveIMAP) put(user string, all ...item) {
	l.t.Helper()
	a, err := dialIMAP(l.c, user, "secret")
	if err != nil {
		l.t.Fatal(err)
	}
	a.start(func(it item, _ appendUID, err error) error { return err })
	made := map[string]bool{}
	for _, it := range all {
		if !made[it.mailbox] {
			if err := a.settle(func() error { _, _, err := a.create(it.mailbox); return err }); err != nil {
				l.t.Fatal(err)
			}
			made[it.mailbox] = true
		}
		if err := a.append(it.mailbox, it); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := a.finish(); err != nil {
		l.t.Fatal(err)
	}
}
