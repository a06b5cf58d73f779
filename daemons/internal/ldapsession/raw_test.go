package ldapsession

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"testing"
	"time"

	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/pki"
)

// raw is a client that sends what it is told, and reads message by message.
type raw struct {
	t    testing.TB
	conn net.Conn
	buf  []byte
}

func newRaw(t testing.TB, address string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &raw{t: t, conn: c}
}

func (r *raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// element makes BER of a tag and contents.
func element(tag byte, contents ...[]byte) []byte {
	c := bytes.Join(contents, nil)
	n := len(c)
	switch {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, c...)
	case n < 0x10000:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, c...)
	}
	return append([]byte{tag, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, c...)
}

func number(tag byte, v int) []byte {
	if v < 0x80 {
		return []byte{tag, 1, byte(v)}
	}
	return []byte{tag, 4, byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

func text(s string) []byte { return element(4, []byte(s)) }

func request(id int, op []byte) []byte { return element(0x30, number(2, id), op) }

func bindRequest(id int, dn, password string) []byte {
	return request(id, element(0x60, number(2, 3), text(dn), element(0x80, []byte(password))))
}

func searchRequest(id int, base string, scope int, filter []byte, attrs ...string) []byte {
	var list [][]byte
	for _, a := range attrs {
		list = append(list, text(a))
	}
	return request(id, element(0x63, text(base), number(0x0a, scope), number(0x0a, 0), number(2, 0), number(2, 0),
		[]byte{1, 1, 0}, filter, element(0x30, list...)))
}

func present(attr string) []byte { return element(0x87, []byte(attr)) }
func equal(attr, v string) []byte {
	return element(0xa3, text(attr), text(v))
}

func (r *raw) whoAmI(id int) {
	r.send(request(id, element(0x77, element(0x80, []byte(ldapwire.OIDWhoAmI)))))
}

func (r *raw) bind(dn, password string) {
	r.t.Helper()
	r.send(bindRequest(1, dn, password))
	if c := r.expect(1, ldapwire.OpBindResponse); c != ldapwire.Success {
		r.t.Fatalf("bind: %s", c)
	}
}

// next reads one message.
func (r *raw) next() (*ldapwire.Message, error) {
	for {
		n, err := ldapwire.Frame(r.buf, 1<<30)
		if err != nil {
			r.t.Fatalf("answer %.40x: %v", r.buf, err)
		}
		if n > 0 && n <= len(r.buf) {
			var m ldapwire.Message
			if err := m.Parse(r.buf[:n], ldapwire.Limits{}); err != nil {
				r.t.Fatalf("answer %.40x: %v", r.buf, err)
			}
			r.buf = r.buf[n:]
			return &m, nil
		}
		b := make([]byte, 64<<10)
		k, err := r.conn.Read(b)
		if k == 0 {
			return nil, err
		}
		r.buf = append(r.buf, b[:k]...)
	}
}

// code is the result code of a response.
func code(m *ldapwire.Message) ldapwire.Code {
	b := m.Body
	if len(b) < 3 || b[0] != 0x0a {
		return -1
	}
	c := ldapwire.Code(0)
	for _, o := range b[2 : 2+b[1]] {
		c = c<<8 | ldapwire.Code(o)
	}
	return c
}

// expect reads until the response of this id that ends the operation, and gives its code.
func (r *raw) expect(id int32, op ldapwire.Op) ldapwire.Code {
	r.t.Helper()
	for {
		m, err := r.next()
		if err != nil {
			r.t.Fatalf("waiting for the answer to %d: %v", id, err)
		}
		if m.Op == ldapwire.OpSearchResultEntry {
			continue
		}
		if m.ID != id || m.Op != op {
			r.t.Fatalf("answer to %d with tag 0x%02x, want %d 0x%02x", m.ID, byte(m.Op), id, byte(op))
		}
		return code(m)
	}
}

func (r *raw) expectNotice(want ldapwire.Code) {
	r.t.Helper()
	if c := r.expect(0, ldapwire.OpExtendedResponse); c != want {
		r.t.Errorf("notice of disconnection says %s, want %s", c, want)
	}
}

func (r *raw) expectEnd() {
	r.t.Helper()
	m, err := r.next()
	if m != nil {
		r.t.Errorf("the connection goes on: %+v", m)
	}
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		r.t.Errorf("the connection stays open: %v", err)
	}
}

func salted(scheme string, sum []byte, salt string) string {
	return "{" + scheme + "}" + base64.StdEncoding.EncodeToString(append(sum, salt...))
}

func ssha256(p, salt string) string {
	h := sha256.Sum256([]byte(p + salt))
	return salted("SSHA256", h[:], salt)
}

func ssha512(p, salt string) string {
	h := sha512.Sum512([]byte(p + salt))
	return salted("SSHA512", h[:], salt)
}

// certificate gives a server's configuration of TLS, and one for clients that trust it.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ca, err := pki.NewCA(pki.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	k, err := ca.Issue(pki.Request{Role: pki.RoleVault, Name: "vault1", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(k.Cert, k.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	return &tls.Config{Certificates: []tls.Certificate{cert}}, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}
