package outbound

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"shoal/daemons/internal/clock"
)

func TestTLS(t *testing.T) {
	cert, pool := certificate(t, "mx.far.test")
	encrypted := func(m *mailbox) { m.srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}} }
	// A server that offers STARTTLS and then talks nonsense.
	broken := plainServer(t, "250-x\r\n250 STARTTLS", func(n int, line string) string {
		switch {
		case verb(line) == "STARTTLS":
			return "220 go\r\nnonsense"
		case n == 1 && verb(line) != "EHLO":
			return "close"
		}
		return ""
	})
	for _, x := range []struct {
		name, mode string
		roots      *x509.CertPool
		server     string
		want       string
		secure     bool
	}{
		{"offered", "opportunistic", nil, serveSMTP(t, encrypted).addr, "taken", true},
		{"not offered", "opportunistic", nil, serveSMTP(t, nil).addr, "taken", false},
		{"off", "off", nil, serveSMTP(t, encrypted).addr, "taken", false},
		{"required", "require", nil, serveSMTP(t, encrypted).addr, "taken", true},
		{"required and not offered", "require", nil, serveSMTP(t, nil).addr, "451 4.7.5", false},
		{"verified", "verify", pool, serveSMTP(t, encrypted).addr, "taken", true},
		{"not to be verified", "verify", x509.NewCertPool(), serveSMTP(t, encrypted).addr, "451 4.7.5", false},
		{"nonsense before the handshake", "require", nil, broken.addr, "451 4.7.5", false},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld()
			w.at["mx.far.test:25"] = x.server
			c := w.client(t, func(o *Options) {
				o.Settings.SmartHost, o.Settings.TLS, o.TLS = "mx.far.test:25", x.mode, &tls.Config{RootCAs: x.roots}
			})
			m, rcpts := mailOf(t, text, "bob@anywhere.test")
			r := send(t, c, "anywhere.test", m, rcpts)
			if got := status(r.Outcomes[0]); got != x.want {
				t.Fatalf("%s (%v), want %s", got, r.Outcomes[0].Err, x.want)
			}
		})
	}
}

// A handshake that fails where nobody demands TLS does not stop the mail.
func TestBrokenTLSFallsBack(t *testing.T) {
	s := plainServer(t, "250-x\r\n250 STARTTLS", func(n int, line string) string {
		if verb(line) == "STARTTLS" {
			return "220 go"
		}
		if strings.HasPrefix(line, "\x16") { // a ClientHello
			return "close"
		}
		return ""
	})
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", s.addr)
	c := w.client(t, nil)
	m, rcpts := mailOf(t, text, "bob@far.test")
	if r := send(t, c, "far.test", m, rcpts); r.Outcomes[0].Err != nil || s.opened() != 2 {
		t.Fatalf("%v, %d connections", r.Outcomes[0].Err, s.opened())
	}
}

func TestSmartHostLogin(t *testing.T) {
	cert, pool := certificate(t, "mx.far.test")
	box := serveSMTP(t, func(m *mailbox) {
		m.srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		m.password = "secret word"
	})
	plain := serveSMTP(t, func(m *mailbox) { m.password, m.srv.AllowInsecureAuth = "secret word", true })
	dir := t.TempDir()
	for _, x := range []struct{ name, server, password, want string }{
		{"right", box.addr, "secret word", "taken"},
		{"wrong", box.addr, "guess", "451 4.7.0"},
		{"without TLS", plain.addr, "secret word", "451 4.7.5"},
	} {
		file := filepath.Join(dir, "pw")
		if err := os.WriteFile(file, []byte(x.password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w := newWorld()
		w.at["mx.far.test:587"] = x.server
		c := w.client(t, func(o *Options) {
			o.Settings.SmartHost, o.Settings.User, o.Settings.PasswordFile, o.TLS = "mx.far.test:587", "shoal", file, &tls.Config{RootCAs: pool}
		})
		m, rcpts := mailOf(t, text, "bob@anywhere.test")
		r := send(t, c, "anywhere.test", m, rcpts)
		if got := status(r.Outcomes[0]); got != x.want {
			t.Errorf("%s: %s (%v), want %s", x.name, got, r.Outcomes[0].Err, x.want)
		}
	}
	if all := box.all(); len(all) != 1 || all[0].user != "shoal" || !all[0].tls {
		t.Errorf("arrived: %+v", all)
	}
	if len(plain.all()) != 0 {
		t.Error("mail went out in clear")
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	box := serveSMTP(t, func(m *mailbox) {
		m.refuse["nobody@far.test"] = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no"}
	})
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", box.addr)
	fake := clock.NewFake(time.Unix(1e9, 0))
	c := w.client(t, func(o *Options) { o.Clock, o.Settings.MaxUses = fake, 3 })
	one := func(to, want string) {
		t.Helper()
		m, rcpts := mailOf(t, text, to)
		if got := status(send(t, c, "far.test", m, rcpts).Outcomes[0]); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	for i, x := range []struct {
		to, want string
		sessions int
		wait     time.Duration
	}{
		{"bob@far.test", "taken", 1, 0},
		{"nobody@far.test", "550 5.1.1", 1, 0}, // refused and reset
		{"bob@far.test", "taken", 1, 0},
		{"bob@far.test", "taken", 2, 0},               // the bound on uses
		{"bob@far.test", "taken", 3, 6 * time.Second}, // idle for too long
	} {
		fake.Advance(x.wait)
		one(x.to, x.want)
		if n := len(w.dialed()); n != x.sessions {
			t.Errorf("message %d: %d connections, want %d", i+1, n, x.sessions)
		}
	}
}

// A connection that died while it waited costs nothing but a new one.
func TestDeadConnectionIsReplaced(t *testing.T) {
	s := plainServer(t, "250-x\r\n250 PIPELINING", func(n int, line string) string {
		if n == 1 && strings.Contains(line, "second@") {
			return "close"
		}
		return ""
	})
	w := newWorld()
	w.exchanger("far.test", 10, "mx.far.test", "192.0.2.1", s.addr)
	c := w.client(t, nil)
	for _, to := range []string{"first@far.test", "second@far.test"} {
		m, rcpts := mailOf(t, text, to)
		if r := send(t, c, "far.test", m, rcpts); r.Outcomes[0].Err != nil {
			t.Fatalf("%s: %v", to, r.Outcomes[0].Err)
		}
	}
	if s.opened() != 2 {
		t.Errorf("%d connections", s.opened())
	}
}
