package ldapsession

import (
	"io"
	"net"
	"testing"
	"time"

	"shoal/daemons/internal/ldapwire"
)

// FuzzConnection sends octets after a good bind. Whatever they are, the server answers or takes leave,
// what it sends is LDAP, and it goes on to serve.
func FuzzConnection(f *testing.F) {
	for _, b := range [][]byte{
		searchRequest(2, "o=shoal", 2, present("objectClass"), "*", "+"),
		searchRequest(2, "", 0, equal("cn", "x")),
		request(2, element(0x4a, []byte("uid=bob,ou=people,o=shoal"))),
		request(2, element(0x50, []byte{1})),
		request(2, element(0x77, element(0x80, []byte(ldapwire.OIDStartTLS)))),
		request(2, element(0x77, element(0x80, []byte(ldapwire.OIDCancel)), element(0x81, element(0x30, number(2, 1))))),
		request(2, element(0x68, text("ou=z,o=shoal"), element(0x30, element(0x30, text("objectClass"), element(0x31, text("organizationalUnit")))))),
		request(2, element(0x66, text("ou=people,o=shoal"), element(0x30, element(0x30, number(0x0a, 2), element(0x30, text("description"), element(0x31, text("d"))))))),
		request(2, element(0x6c, text("uid=alice,ou=people,o=shoal"), text("uid=al"), []byte{1, 1, 0xff})),
		request(2, element(0x6e, text("ou=people,o=shoal"), element(0x30, text("ou"), text("people")))),
		request2(searchBody("o=shoal", present("cn")), ldapwire.OIDSortRequest, element(0x30, element(0x30, text("cn"), element(0x81, []byte{0xff})))),
		request2(searchBody("o=shoal", present("cn")), ldapwire.OIDMatchedValues, element(0x30, equal("cn", "x"))),
		request2(searchBody("o=shoal", present("cn")), ldapwire.OIDListViewRequest, element(0x30, number(2, 1), number(2, 1), element(0xa0, number(2, 1), number(2, 0)))),
		request2(searchBody("o=shoal", present("cn")), ldapwire.OIDAssertion, equal("o", "shoal")),
		request2(searchBody("o=shoal", present("cn")), ldapwire.OIDSubentries, []byte{1, 1, 0xff}),
		request2(element(0x4a, []byte("ou=people,o=shoal")), ldapwire.OIDPreRead, element(0x30, text("*"))),
		request2(element(0x4a, []byte("ou=people,o=shoal")), ldapwire.OIDTransaction, []byte("x")),
		request(2, element(0x77, element(0x80, []byte(ldapwire.OIDTransactionStart)))),
		request(2, element(0x77, element(0x80, []byte(ldapwire.OIDTransactionEnd)), element(0x81, element(0x30, text("x"))))),
		{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff},
		request(2, element(0x42)),
	} {
		f.Add(b)
	}
	s := start(f)
	bind := bindRequest(1, "cn=admin,o=shoal", "secret")
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(append(bind[:len(bind):len(bind)], b...)); err == nil {
			_ = c.(*net.TCPConn).CloseWrite() // the server may have closed already
		}
		got, err := io.ReadAll(c)
		if n, ok := err.(net.Error); ok && n.Timeout() {
			t.Fatalf("no end after %x", b)
		}
		for len(got) > 0 {
			n, err := ldapwire.Frame(got, 1<<30)
			if err != nil || n == 0 || n > len(got) {
				return // cut off by a reset
			}
			var m ldapwire.Message
			if err := m.Parse(got[:n], ldapwire.Limits{}); err != nil {
				t.Fatalf("answer to %x: %x: %v", b, got[:n], err)
			}
			got = got[n:]
		}
	})
}
