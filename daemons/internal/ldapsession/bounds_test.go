package ldapsession

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// What is no LDAP, or more of it than is taken, ends the connection with a notice of disconnection; the
// server goes on.
func TestBadOctets(t *testing.T) {
	f := start(t)
	for name, b := range map[string][]byte{
		"HTTP":                          []byte("GET / HTTP/1.1\r\n\r\n"),
		"TLS on a plain port":           {0x16, 3, 1, 2, 0},
		"2 GiB":                         {0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 2, 1, 1},
		"16 EiB":                        {0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"indefinite length":             {0x30, 0x80, 2, 1, 1, 0x42, 0, 0, 0},
		"empty message":                 {0x30, 0},
		"id missing":                    {0x30, 5, 4, 1, 1, 0x42, 0},
		"negative id":                   {0x30, 5, 2, 1, 0xff, 0x42, 0},
		"id 0":                          request(0, element(0x60, number(2, 3), text(""), element(0x80))),
		"unknown operation":             request(1, element(0x7e)),
		"a response":                    request(1, element(0x61, number(0x0a, 0), text(""), text(""))),
		"inner length too long":         {0x30, 7, 2, 1, 1, 0x63, 0x7f, 4, 1},
		"rubbish after the op":          {0x30, 7, 2, 1, 1, 0x42, 0, 1, 1},
		"above the limit before a bind": request(1, element(0x63, bytes.Repeat([]byte("x"), 65<<10))),
	} {
		c := newRaw(t, f.address)
		c.send(b)
		c.expectNotice(ldapwire.ProtocolError)
		c.expectEnd()
		_ = name
	}
	if r, err := search(f.root(t), "o=shoal", 0, "(objectClass=*)"); err != nil || len(r.Entries) != 1 {
		t.Errorf("afterwards: %v", err)
	}
}

// What is LDAP in its frame but not inside is answered, and the connection goes on.
func TestBadRequests(t *testing.T) {
	f := start(t)
	c := newRaw(t, f.address)
	c.bind("cn=admin,o=shoal", "secret")
	deep := present("x")
	for range 2000 {
		deep = element(0xa2, deep)
	}
	var wide []byte
	for range 10000 {
		wide = append(wide, present("x")...)
	}
	for i, q := range []struct {
		b    []byte
		op   ldapwire.Op
		want ldapwire.Code
	}{
		{searchRequest(2, "o=shoal", 2, deep), ldapwire.OpSearchResultDone, ldapwire.AdminLimitExceeded},
		{searchRequest(2, "o=shoal", 2, element(0xa0, wide)), ldapwire.OpSearchResultDone, ldapwire.AdminLimitExceeded},
		{searchRequest(2, "o=shoal", 9, present("x")), ldapwire.OpSearchResultDone, ldapwire.ProtocolError},
		{searchRequest(2, "o=shoal", 2, element(0xaf)), ldapwire.OpSearchResultDone, ldapwire.ProtocolError},
		{searchRequest(2, "no name", 2, present("x")), ldapwire.OpSearchResultDone, ldapwire.InvalidDNSyntax},
		{searchRequest(2, strings.Repeat("ou=x,", 3000)+"o=shoal", 2, present("x")), ldapwire.OpSearchResultDone, ldapwire.InvalidDNSyntax},
		{request(2, element(0x63)), ldapwire.OpSearchResultDone, ldapwire.ProtocolError},
		{request(2, element(0x60)), ldapwire.OpBindResponse, ldapwire.ProtocolError},
	} {
		c.send(q.b)
		if got := c.expect(2, q.op); got != q.want {
			t.Errorf("request %d: %s, want %s", i, got, q.want)
		}
	}
	c.bind("cn=admin,o=shoal", "secret")
	for i, b := range [][]byte{
		request(3, element(0x60, number(2, 2), text(""), element(0x80))),
		request(3, element(0x66)), request(3, element(0x68)), request(3, element(0x6c)), request(3, element(0x6e)), request(3, element(0x77)),
	} {
		c.send(b)
		m, err := c.next()
		if err != nil || m.ID != 3 || code(m) != ldapwire.ProtocolError && code(m) != ldapwire.InsufficientAccessRights {
			t.Errorf("request %d: %+v %v", i, m, err)
		}
	}
	c.whoAmI(4)
	if got := c.expect(4, ldapwire.OpExtendedResponse); got != ldapwire.Success {
		t.Errorf("afterwards: %s", got)
	}
}

// A client that closes its side after asking gets its answers.
func TestHalfClosed(t *testing.T) {
	f := start(t)
	c := newRaw(t, f.address)
	var b []byte
	b = append(b, bindRequest(1, "cn=admin,o=shoal", "secret")...)
	for i := 2; i < 20; i++ {
		b = append(b, searchRequest(i, "o=shoal", 2, present("objectClass"))...)
	}
	b = append(b, request(20, element(0x4a, []byte("uid=bob,ou=people,o=shoal")))...)
	c.send(b)
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answered := map[int32]bool{}
	for {
		m, err := c.next()
		if err != nil {
			break
		}
		if m.Op != ldapwire.OpSearchResultEntry {
			answered[m.ID] = true
			if code(m) != ldapwire.Success {
				t.Errorf("answer to %d: %s", m.ID, code(m))
			}
		}
	}
	if len(answered) != 20 {
		t.Errorf("%d answers of 20", len(answered))
	}
}

// A request that comes octet by octet is a request.
func TestSlowSender(t *testing.T) {
	f := start(t)
	c := newRaw(t, f.address)
	b := append(bindRequest(1, "cn=admin,o=shoal", "secret"), searchRequest(2, "o=shoal", 0, present("objectClass"))...)
	for i := range b {
		c.send(b[i : i+1])
	}
	c.expect(1, ldapwire.OpBindResponse)
	c.expect(2, ldapwire.OpSearchResultDone)
	long := strings.Repeat("x", 3<<20)
	c.send(searchRequest(3, "o=shoal", 0, equal("cn", long)))
	if got := c.expect(3, ldapwire.OpSearchResultDone); got != ldapwire.Success {
		t.Errorf("request of 3 MiB: %s", got)
	}
}

// Requests that were sent together are answered in one go, each once; a search sees the updates before it.
func TestPipelining(t *testing.T) {
	f := start(t)
	c := newRaw(t, f.address)
	c.bind("cn=admin,o=shoal", "secret")
	var b []byte
	const n = 300
	for i := range n {
		add := element(0x68, fmt.Appendf(nil, "\x04%c%s", len(fmt.Sprintf("ou=p%03d,o=shoal", i)), fmt.Sprintf("ou=p%03d,o=shoal", i)),
			element(0x30, element(0x30, text("objectClass"), element(0x31, text("organizationalUnit")))))
		b = append(b, request(1000+i, add)...)
		if i%50 == 49 {
			b = append(b, searchRequest(2000+i, "o=shoal", 2, equal("ou", fmt.Sprintf("p%03d", i)), "1.1")...)
		}
	}
	go func() { _, _ = c.conn.Write(b) }()
	found, answered := 0, map[int32]int{}
	for len(answered) < n+n/50 {
		m, err := c.next()
		if err != nil {
			t.Fatalf("after %d answers: %v", len(answered), err)
		}
		if m.Op == ldapwire.OpSearchResultEntry {
			found++
			continue
		}
		if answered[m.ID]++; answered[m.ID] > 1 || code(m) != ldapwire.Success {
			t.Errorf("answer to %d: %s, %d times", m.ID, code(m), answered[m.ID])
		}
	}
	if found != n/50 {
		t.Errorf("%d searches of %d saw the update before them", found, n/50)
	}
}

func (f *fixture) grow(t testing.TB, n int) {
	t.Helper()
	var writes []*dirstore.Write
	for i := range n {
		w := &dirstore.Write{Op: &dirstore.Add{DN: fmt.Appendf(nil, "ou=g%05d,ou=people,o=shoal", i), Attributes: []ldapwire.Attribute{
			{Type: []byte("objectClass"), Values: [][]byte{[]byte("organizationalUnit")}},
			{Type: []byte("description"), Values: [][]byte{bytes.Repeat([]byte("d"), 1000)}}}}}
		f.store.Submit(w)
		writes = append(writes, w)
	}
	for _, w := range writes {
		if err := w.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// While a big result is under way other operations are answered, abandon ends it without an answer and
// cancel with one.
func TestAbandonAndCancel(t *testing.T) {
	f := start(t)
	f.grow(t, 20000)
	c := newRaw(t, f.address)
	c.bind("cn=admin,o=shoal", "secret")
	big := searchRequest(2, "o=shoal", 2, present("objectClass"))
	c.send(big)
	if m, err := c.next(); err != nil || m.Op != ldapwire.OpSearchResultEntry {
		t.Fatalf("first entry: %+v %v", m, err)
	}
	c.send(request(3, element(0x50, []byte{2})))
	c.whoAmI(4)
	entries := 0
	for {
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == 4 {
			break
		}
		if m.Op != ldapwire.OpSearchResultEntry {
			t.Fatalf("abandoned search answered: %+v", m)
		}
		entries++
	}
	if entries >= 20000 {
		t.Errorf("all %d entries came in spite of the abandon", entries)
	}
	// The id is free again, once the search has noticed.
	c.send(bindRequest(5, "cn=admin,o=shoal", "secret"))
	c.expect(5, ldapwire.OpBindResponse)
	c.send(big)
	if m, err := c.next(); err != nil || m.Op != ldapwire.OpSearchResultEntry {
		t.Fatalf("first entry: %+v %v", m, err)
	}
	cancel := func(id, target int) {
		c.send(request(id, element(0x77, element(0x80, []byte(ldapwire.OIDCancel)), element(0x81, element(0x30, number(2, target))))))
	}
	cancel(6, 2)
	if got := c.expect(2, ldapwire.OpSearchResultDone); got != ldapwire.Canceled {
		t.Errorf("cancelled search: %s", got)
	}
	if got := c.expect(6, ldapwire.OpExtendedResponse); got != ldapwire.Success {
		t.Errorf("cancel: %s", got)
	}
	cancel(7, 99)
	if got := c.expect(7, ldapwire.OpExtendedResponse); got != ldapwire.NoSuchOperation {
		t.Errorf("cancel of nothing: %s", got)
	}
}

// A message id that is in use ends the connection.
func TestMessageIDTwice(t *testing.T) {
	f := start(t)
	f.grow(t, 5000)
	c := newRaw(t, f.address)
	c.bind("cn=admin,o=shoal", "secret")
	big := searchRequest(2, "o=shoal", 2, present("objectClass"))
	c.send(append(bytes.Clone(big), big...))
	c.expectNotice(ldapwire.ProtocolError)
}

// More searches than may be under way wait for each other; none is lost.
func TestManyLongSearches(t *testing.T) {
	f := start(t, func(o *Options, _ *Listening) { o.Limits.Operations = 3 })
	f.grow(t, 1000)
	c := newRaw(t, f.address)
	c.bind("cn=admin,o=shoal", "secret")
	var b []byte
	for i := range 20 {
		b = append(b, searchRequest(100+i, "o=shoal", 2, present("objectClass"), "1.1")...)
	}
	c.send(b)
	done, entries := 0, 0
	for done < 20 {
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Op == ldapwire.OpSearchResultEntry {
			entries++
		} else {
			done++
		}
	}
	if entries != 20*1005 {
		t.Errorf("%d entries", entries)
	}
}

// tick moves the fake clock on until cond is true, one sweep at a time.
func tick(t *testing.T, now *clock.Fake, cond func() bool) int {
	t.Helper()
	for i := 1; i <= 500; i++ {
		now.WaitTimers(1)
		now.Advance(sweepInterval)
		now.WaitTimers(1)
		if cond() {
			return i
		}
	}
	t.Fatal("nothing happened in 500 s")
	return 0
}

// hungUp reports whether the server closed a connection, without waiting long.
func hungUp(c net.Conn) bool {
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
		return true
	}
	_, err := c.Read(make([]byte, 1))
	return err == io.EOF || err != nil && strings.Contains(err.Error(), "reset")
}

func TestTimeLimits(t *testing.T) {
	now := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	f := start(t, func(o *Options, _ *Listening) {
		o.Clock = now
		o.Limits.Unbound, o.Limits.Idle = 10*time.Second, 60*time.Second
	})
	never, idle := newRaw(t, f.address), newRaw(t, f.address)
	idle.bind("cn=admin,o=shoal", "secret")
	never.whoAmI(1)
	never.expect(1, ldapwire.OpExtendedResponse)
	if s := tick(t, now, func() bool { return hungUp(never.conn) }); s < 10 || s > 13 {
		t.Errorf("connection without a bind cut off after %d s", s)
	}
	if hungUp(idle.conn) {
		t.Error("the bound connection is gone, too")
	}
	if s := tick(t, now, func() bool { return hungUp(idle.conn) }); s < 45 || s > 55 {
		t.Errorf("idle connection cut off after %d s more", s)
	}
}

// A client that does not take a big result is cut off, and holds nobody else up.
func TestSlowReader(t *testing.T) {
	now := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	f := start(t, func(o *Options, _ *Listening) {
		o.Clock = now
		o.Limits.Write = 20 * time.Second
	})
	f.grow(t, 20000) // 20 MB, more than the sockets' buffers hold
	slow := newRaw(t, f.address)
	slow.bind("cn=admin,o=shoal", "secret")
	slow.send(searchRequest(2, "o=shoal", 2, present("objectClass")))
	other := newRaw(t, f.address)
	other.bind("cn=admin,o=shoal", "secret")
	tick(t, now, func() bool {
		other.send(searchRequest(3, "o=shoal", 0, present("objectClass")))
		other.expect(3, ldapwire.OpSearchResultDone)
		return f.server.Connections() == 1
	})
	for {
		if _, err := slow.next(); err != nil {
			break // what was on the way, then the end
		}
	}
}

func TestPasswordPoolIsBounded(t *testing.T) {
	p := NewPasswords(cheap, 1, 1)
	if err := p.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		_, err := p.Verify(t.Context(), nil, []byte("x"))
		waiting <- err
	}()
	for p.Waiting() < 2 {
		select {
		case err := <-waiting:
			t.Fatalf("did not wait: %v", err)
		default:
		}
	}
	if _, err := p.Verify(t.Context(), nil, []byte("x")); err != ErrBusy {
		t.Errorf("third: %v", err)
	}
	p.leave()
	if err := <-waiting; err != nil {
		t.Error(err)
	}
}

func TestHashesThatAreRefused(t *testing.T) {
	for _, v := range []string{"", "plain", "{", "{}x", "{SSHA}", "{SSHA}!!!!", "{SSHA}c2hvcnQ=", "{MD5}x", "{CLEARTEXT}secret",
		"{ARGON2}$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA", "{ARGON2}$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
		"{ARGON2}$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA", "{ARGON2}x", "{CRYPT}xx", "{CRYPT}$6$rounds=999999999$a$b"} {
		if IsHashed([]byte(v)) {
			t.Errorf("%q counts as a hash", v)
		}
		if v == "{CLEARTEXT}secret" {
			continue
		}
		if m, _ := verify([]byte(v), []byte("secret")); m {
			t.Errorf("%q matches", v)
		}
	}
}
