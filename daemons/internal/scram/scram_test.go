package scram

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// The examples of RFC 5802 §5 and RFC 7677 §3.
var examples = []struct {
	hash                                                     *Hash
	nonce, fixed, salt                                       string
	clientFirst, serverFirst, clientFinal, serverFinal, name string
}{
	{SHA1, "fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j", "QSXCR+Q6sek8bf92",
		"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
		"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
		"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
		"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=", "RFC 5802"},
	{SHA256, "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "W22ZaJ0SNY7soEsUEjb6gQ==",
		"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
		"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "RFC 7677"},
}

func TestExamplesOfTheRFCs(t *testing.T) {
	for _, x := range examples {
		t.Run(x.name, func(t *testing.T) {
			salt, _ := base64.StdEncoding.DecodeString(x.salt)
			v := Make(x.hash, "pencil", salt, 4096)
			s, err := NewServer(x.hash.Name, nil, func(name, authzid string) (Verifier, error) {
				if name != "user" || authzid != "" {
					t.Errorf("asked for %q as %q", name, authzid)
				}
				return Parse(v.String())
			})
			if err != nil {
				t.Fatal(err)
			}
			s.fixed = x.fixed
			c, err := NewClient(x.hash.Name, "user", "pencil", "", nil, "")
			if err != nil {
				t.Fatal(err)
			}
			c.nonce = x.nonce
			if got := string(c.First()); got != x.clientFirst {
				t.Fatalf("client-first %q", got)
			}
			got, done, err := s.Next([]byte(x.clientFirst))
			if string(got) != x.serverFirst || done || err != nil {
				t.Fatalf("server-first %q, %v, %v", got, done, err)
			}
			if got, _, err = c.Next(got); string(got) != x.clientFinal || err != nil {
				t.Fatalf("client-final %q, %v", got, err)
			}
			if got, done, err = s.Next(got); string(got) != x.serverFinal || !done || err != nil {
				t.Fatalf("server-final %q, %v, %v", got, done, err)
			}
			if _, done, err = c.Next(got); !done || err != nil {
				t.Fatalf("client: %v, %v", done, err)
			}
		})
	}
}

// exchange runs both sides and gives their errors.
func exchange(s *Server, c *Client) (server, client error) {
	msg := c.First()
	for {
		answer, done, err := s.Next(msg)
		if err != nil {
			return err, nil
		}
		msg, _, err = c.Next(answer)
		if done || err != nil {
			return nil, err
		}
	}
}

func TestExchanges(t *testing.T) {
	bound := Binding{TLSExporter: []byte("exporter"), TLSServerEndPoint: []byte("end point")}
	other := Binding{TLSExporter: []byte("somebody between")}
	v := New(SHA256, "Pa,s=s wörd", 4096)
	for _, x := range []struct {
		name, mechanism, password string
		server, client            Binding
		by                        string
		want                      error
	}{
		{"plain", "SCRAM-SHA-256", "Pa,s=s wörd", nil, nil, "", nil},
		{"same password in another form", "SCRAM-SHA-256", "Pa,s=s\u00a0wo\u0308rd", nil, nil, "", nil},
		{"wrong password", "SCRAM-SHA-256", "Pa,s=s word", nil, nil, "", ErrProof},
		{"exporter", "SCRAM-SHA-256-PLUS", "Pa,s=s wörd", bound, bound, TLSExporter, nil},
		{"end point", "SCRAM-SHA-256-PLUS", "Pa,s=s wörd", bound, bound, TLSServerEndPoint, nil},
		{"somebody between", "SCRAM-SHA-256-PLUS", "Pa,s=s wörd", bound, other, TLSExporter, ErrChannelBinding},
		{"binding not on offer", "SCRAM-SHA-256-PLUS", "Pa,s=s wörd", bound, Binding{"tls-unique": []byte("x")}, "tls-unique", ErrChannelBinding},
		{"client that cannot bind", "SCRAM-SHA-256", "Pa,s=s wörd", bound, nil, "", nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			s, err := NewServer(x.mechanism, x.server, func(name, authzid string) (Verifier, error) {
				if name != "al,ice=@example.test" || authzid != "b=ob," {
					t.Errorf("asked for %q as %q", name, authzid)
				}
				return v, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			c, err := NewClient(x.mechanism, "al,ice=@example.test", x.password, "b=ob,", x.client, x.by)
			if err != nil {
				t.Fatal(err)
			}
			server, client := exchange(s, c)
			if !errors.Is(server, x.want) || client != nil {
				t.Fatalf("server: %v, client: %v; want %v", server, client, x.want)
			}
			if _, _, err := s.Next([]byte("c=biws")); err == nil {
				t.Fatal("the exchange goes on after its end")
			}
		})
	}
}

// TestDowngrade: a client that did not see the offer of -PLUS says so, and is refused (RFC 5802 §6).
func TestDowngrade(t *testing.T) {
	v := New(SHA256, "secret", 4096)
	lookup := func(string, string) (Verifier, error) { return v, nil }
	s, _ := NewServer("SCRAM-SHA-256", Binding{TLSExporter: []byte("x")}, lookup)
	if _, _, err := s.Next([]byte("y,,n=user,r=abc")); !errors.Is(err, ErrChannelBinding) {
		t.Fatalf("with an offer: %v", err)
	}
	s, _ = NewServer("SCRAM-SHA-256", nil, lookup)
	if _, _, err := s.Next([]byte("y,,n=user,r=abc")); err != nil {
		t.Fatalf("without an offer: %v", err)
	}
	if _, err := NewServer("SCRAM-SHA-256-PLUS", nil, lookup); !errors.Is(err, ErrChannelBinding) {
		t.Fatalf("-PLUS without TLS: %v", err)
	}
}

// TestServerMustKnowTheVerifier: a client notices a server that accepts everything.
func TestServerMustKnowTheVerifier(t *testing.T) {
	c, _ := NewClient("SCRAM-SHA-256", "user", "secret", "", nil, "")
	s, _ := NewServer("SCRAM-SHA-256", nil, func(string, string) (Verifier, error) {
		v := Make(SHA256, "secret", []byte("salt"), 4096)
		v.ServerKey = bytes.Repeat([]byte{1}, 32)
		return v, nil
	})
	if server, client := exchange(s, c); server != nil || !errors.Is(client, ErrProof) {
		t.Fatalf("server: %v, client: %v", server, client)
	}
}

func TestMalformedMessages(t *testing.T) {
	for _, m := range []string{"", "n", "n,", "n,,", "n,,n=", "n,,n=user", "n,,n=user,r=", "n,,n=us=er,r=abc", "n,,m=x,n=user,r=abc",
		"q,,n=user,r=abc", "p=,,n=user,r=abc", "n,a=,n=user,r=abc", "n,b=x,n=user,r=abc", "n,,n=user,r=a\x01c", "n,,n=\xff,r=abc",
		"n,,n=" + strings.Repeat("x", 5000) + ",r=abc"} {
		s, _ := NewServer("SCRAM-SHA-256", nil, func(string, string) (Verifier, error) { return New(SHA256, "x", 1), nil })
		if _, _, err := s.Next([]byte(m)); !errors.Is(err, ErrMalformed) {
			t.Errorf("first %.40q: %v", m, err)
		}
	}
	for _, m := range []string{"", "c=biws", "c=biws,r=abc", "c=biws,r=abc,p=", "c=biws,r=wrong,p=AAAA", "c=bi,r=NONCE,p=AAAA", "r=NONCE,c=biws,p=AAAA",
		"c=biws,r=NONCE,p=AAAA"} {
		s, _ := NewServer("SCRAM-SHA-256", nil, func(string, string) (Verifier, error) { return New(SHA256, "x", 1), nil })
		s.fixed = "def"
		if _, _, err := s.Next([]byte("n,,n=user,r=abc")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Next([]byte(strings.ReplaceAll(m, "NONCE", "abcdef"))); !errors.Is(err, ErrMalformed) {
			t.Errorf("final %q: %v", m, err)
		}
	}
}

func TestVerifierText(t *testing.T) {
	v := New(SHA256, "secret", 4096)
	w, err := Parse(v.String())
	if err != nil || w.String() != v.String() || !w.Is("secret") || w.Is("Secret") {
		t.Fatalf("%v: %v", w, err)
	}
	if w, err := Parse(strings.Replace(strings.ToLower("SCRAM-SHA-256")+v.String()[13:], "$", " $ ", 2)); err != nil || !w.Is("secret") {
		t.Fatalf("lower case and spaces: %v", err)
	}
	for _, bad := range []string{"", "SCRAM-SHA-256", "SCRAM-SHA-512$4096:QQ==$QQ==:QQ==", "SCRAM-SHA-256$0:QQ==$QQ==:QQ==",
		strings.Replace(v.String(), "4096", "99999999999", 1), strings.Replace(v.String(), "SHA-256", "SHA-1", 1),
		strings.Replace(v.String(), "SHA-256", "SHA-256-PLUS", 1), strings.Replace(v.String(), "4096", "+4096", 1), v.String() + "$x"} {
		if _, err := Parse(bad); !errors.Is(err, ErrVerifier) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	one := New(SHA1, "secret", 4096)
	if f, ok := Find(SHA1, [][]byte{[]byte("{ARGON2}$x$"), []byte(v.String()), []byte(one.String())}); !ok || f.String() != one.String() {
		t.Error("Find misses the verifier")
	}
}

// TestFake: the salt of a name that nobody has is always the same, another for each name, and nothing matches it.
func TestFake(t *testing.T) {
	key := []byte("of the service")
	a, b := Fake(SHA256, key, "Nobody@example.test", 4096), Fake(SHA256, key, "nobody@example.test", 4096)
	if !bytes.Equal(a.Salt, b.Salt) || len(a.Salt) != len(New(SHA256, "x", 1).Salt) {
		t.Error("the salt changes")
	}
	for _, other := range []Verifier{Fake(SHA256, key, "else@example.test", 4096), Fake(SHA1, key, "nobody@example.test", 4096), Fake(SHA256, []byte("k"), "nobody@example.test", 4096)} {
		if bytes.Equal(a.Salt, other.Salt) {
			t.Error("salts are equal")
		}
	}
	s, _ := NewServer("SCRAM-SHA-256", nil, func(string, string) (Verifier, error) { return a, nil })
	c, _ := NewClient("SCRAM-SHA-256", "nobody", "x", "", nil, "")
	if server, _ := exchange(s, c); !errors.Is(server, ErrProof) {
		t.Errorf("a fake verifier gives %v", server)
	}
}

// TestPrepare has the examples of RFC 4013 §3.
func TestPrepare(t *testing.T) {
	for in, want := range map[string]string{"I\u00adX": "IX", "user": "user", "USER": "USER", "\u00aa": "a", "\u2168": "IX",
		"a\u3000b": "a b", "\u0627\u0628": "\u0627\u0628"} {
		if got, err := Prepare(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"\u0007", "\u0627\u0031", "a\u0627", "\ue000", "\xff", "a\u200eb\u00e9"} {
		if _, err := Prepare(in); !errors.Is(err, ErrProhibited) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestBindingsOfAConnection: both ends of a connection find the same bindings, and another connection has another
// exporter.
func TestBindingsOfAConnection(t *testing.T) {
	cert, der := selfSigned(t)
	seen := map[string]bool{}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13, tls.VersionTLS13} {
		a, b := net.Pipe()
		server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})
		client := tls.Client(b, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
		failed := make(chan error, 1)
		go func() { failed <- server.Handshake() }()
		if err := errors.Join(client.Handshake(), <-failed); err != nil {
			t.Fatal(err)
		}
		ss, cs := server.ConnectionState(), client.ConnectionState()
		at, of := ServerBinding(&ss, der), ClientBinding(&cs)
		for _, name := range []string{TLSExporter, TLSServerEndPoint} {
			if len(at[name]) != 32 || !bytes.Equal(at[name], of[name]) {
				t.Errorf("TLS %x: %s: %x at the server, %x at the client", version, name, at[name], of[name])
			}
		}
		if seen[string(at[TLSExporter])] {
			t.Error("two connections have the same binding")
		}
		seen[string(at[TLSExporter])] = true
		a.Close()
		b.Close()
	}
	if b := ServerBinding(nil, der); len(b) != 0 {
		t.Errorf("a connection without TLS has bindings: %v", b)
	}
	if got := Mechanisms(true, SHA256, SHA1); strings.Join(got, " ") != "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1" {
		t.Errorf("mechanisms %v", got)
	}
}

func selfSigned(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, der
}

func FuzzServer(f *testing.F) {
	for _, x := range examples {
		f.Add([]byte(x.clientFirst), []byte(x.clientFinal))
	}
	f.Add([]byte("p=tls-exporter,a=x=2Cy,n=us=3Der,r=abc,ext=1"), []byte("c=cD10bHMtZXhwb3J0ZXIsYT14PTJDeSx4,r=abcdef,x=y,p=AAAA"))
	v := Make(SHA256, "secret", []byte("salt"), 1)
	f.Fuzz(func(t *testing.T, first, final []byte) {
		for _, m := range []string{"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"} {
			s, err := NewServer(m, Binding{TLSExporter: []byte("x")}, func(string, string) (Verifier, error) { return v, nil })
			if err != nil {
				t.Fatal(err)
			}
			s.fixed = "def"
			if _, _, err := s.Next(first); err != nil {
				continue
			}
			if _, done, err := s.Next(final); done && err == nil && !bytes.Contains(final, []byte(s.nonce)) {
				t.Fatal("accepted without the nonce")
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(New(SHA256, "x", 1).String())
	f.Add(New(SHA1, "x", 1).String())
	f.Add("SCRAM-SHA-256$1:$:")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		if w, err := Parse(v.String()); err != nil || w.String() != v.String() {
			t.Fatalf("%q does not survive: %v", text, err)
		}
	})
}

func FuzzClient(f *testing.F) {
	f.Add([]byte("r=abcdef,s=QQ==,i=1"), []byte("v=AAAA"))
	f.Add([]byte("r=abcdef,s=QQ==,i=1"), []byte("e=other-error"))
	f.Fuzz(func(t *testing.T, first, final []byte) {
		if s, err := parseServerFirst(first); err == nil && s.iterations > 100 {
			return // time only
		}
		c, _ := NewClient("SCRAM-SHA-256", "user", "secret", "", nil, "")
		c.nonce = "abc"
		c.First()
		if _, _, err := c.Next(first); err != nil {
			return
		}
		if _, _, err := c.Next(final); err == nil && !bytes.HasPrefix(final, []byte("v=")) {
			t.Fatal("accepted without the server's proof")
		}
	})
}
