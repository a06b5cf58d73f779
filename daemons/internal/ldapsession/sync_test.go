package ldapsession

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// follower is a client that synchronizes.
type follower struct {
	t    *testing.T
	conn net.Conn
	buf  []byte
}

func (f *fixture) follower(t *testing.T, dn, password string) *follower {
	t.Helper()
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	x := &follower{t: t, conn: c}
	x.send(ldapwire.AppendBindRequest(nil, 1, dn, password))
	if m := x.next(); x.result(m).Code != ldapwire.Success {
		t.Fatalf("bind %s: %v", dn, x.result(m))
	}
	return x
}

func (x *follower) send(b []byte) {
	x.t.Helper()
	if _, err := x.conn.Write(b); err != nil {
		x.t.Fatal(err)
	}
}

// next reads a message.
func (x *follower) next() *ldapwire.Message {
	x.t.Helper()
	for {
		n, err := ldapwire.Frame(x.buf, 1<<24)
		if err != nil {
			x.t.Fatal(err)
		}
		if n > 0 && n <= len(x.buf) {
			m := &ldapwire.Message{}
			if err := m.Parse(x.buf[:n:n], ldapwire.Limits{}); err != nil {
				x.t.Fatal(err)
			}
			x.buf = x.buf[n:]
			return m
		}
		b := make([]byte, 64<<10)
		k, err := x.conn.Read(b)
		if k == 0 {
			x.t.Fatal(err)
		}
		x.buf = append(x.buf, b[:k]...)
	}
}

func (x *follower) result(m *ldapwire.Message) ldapwire.Result {
	x.t.Helper()
	var r ldapwire.Result
	if err := r.Parse(m.Body); err != nil {
		x.t.Fatal(err)
	}
	return r
}

func (x *follower) sync(r ldapwire.SyncRequest, base string, attributes ...string) {
	x.t.Helper()
	x.send(ldapwire.AppendSearchRequest(nil, 2, base, ldapwire.WholeSubtree, attributes,
		ldapwire.AppendControl(nil, ldapwire.OIDSyncRequest, true, r.Append(nil))))
}

// line tells a message in one line: what a follower sees, without what differs each time.
func (x *follower) line(m *ldapwire.Message) (text, cookie string) {
	x.t.Helper()
	fatal := func(err error) {
		if err != nil {
			x.t.Fatal(err)
		}
	}
	switch m.Op {
	case ldapwire.OpSearchResultEntry:
		var e ldapwire.Entry
		fatal(ldapwire.ParseEntry(&e, m.Body, ldapwire.Limits{}))
		state, uuid, c, err := ldapwire.ParseSyncState(m.Controls[0].Value)
		fatal(err)
		if uuid == [16]byte{} {
			x.t.Errorf("%s: no UUID", e.DN)
		}
		names := ""
		for _, a := range e.Attributes {
			names += " " + string(a.Type)
		}
		return fmt.Sprintf("%s %d%s", e.DN, state, names), string(c)
	case ldapwire.OpIntermediateResponse:
		_, v, err := ldapwire.ParseIntermediate(m.Body)
		fatal(err)
		var i ldapwire.SyncInfo
		fatal(i.Parse(v))
		return fmt.Sprintf("info %x %v %v %d", byte(i.Kind), i.RefreshDone, i.RefreshDeletes, len(i.UUIDs)), string(i.Cookie)
	case ldapwire.OpSearchResultDone:
		r := x.result(m)
		if r.Code == ldapwire.Success {
			c, deletes, err := ldapwire.ParseSyncDone(m.Controls[0].Value)
			fatal(err)
			return fmt.Sprintf("done %v", deletes), string(c)
		}
		return r.Code.String(), ""
	}
	return fmt.Sprintf("op %x", byte(m.Op)), ""
}

// expect reads as many messages as there are lines, and returns the last cookie.
func (x *follower) expect(want ...string) (cookie string) {
	x.t.Helper()
	for _, w := range want {
		got, c := x.line(x.next())
		if got != w {
			x.t.Fatalf("got %q, want %q", got, w)
		}
		if c != "" {
			cookie = c
		}
	}
	return cookie
}

func replicas(o *Options, _ *Listening) {
	o.Rights = func(_ *dirstore.Reader, e *dirstore.Found, norm []byte) Rights {
		return Rights{ReadSelf: true, ReadAll: e == nil || strings.HasPrefix(string(norm), "cn="), Write: e == nil, Secrets: strings.HasPrefix(string(norm), "cn=")}
	}
}

// RFC 4533: refreshOnly, refreshAndPersist, the attributes that were asked for, cookies.
func TestSynchronization(t *testing.T) {
	f := start(t, replicas)
	x := f.follower(t, "cn=box1,o=shoal", "boxpass")
	x.sync(ldapwire.SyncRequest{Cookie: []byte("rid=007")}, "o=shoal", "cn", "userPassword")
	cookie := x.expect("o=shoal 1", "cn=box1,o=shoal 1 cn userPassword", "ou=people,o=shoal 1", "uid=alice,ou=people,o=shoal 1 cn userPassword",
		"uid=bob,ou=people,o=shoal 1 cn userPassword", "done false")
	if want := "rid=007,csn=" + f.store.ContextCSN()[0]; cookie != want {
		t.Fatalf("cookie %q, want %q", cookie, want)
	}
	root := f.root(t)
	if err := root.Del(ldap.NewDelRequest("uid=bob,ou=people,o=shoal", nil)); err != nil {
		t.Fatal(err)
	}
	mod := ldap.NewModifyRequest("uid=alice,ou=people,o=shoal", nil)
	mod.Replace("title", []string{"Dr."})
	if err := root.Modify(mod); err != nil {
		t.Fatal(err)
	}
	x.sync(ldapwire.SyncRequest{Cookie: []byte(cookie)}, "o=shoal", "title")
	x.expect("info a3 false true 1", "uid=alice,ou=people,o=shoal 2 title", "done true")

	x.sync(ldapwire.SyncRequest{Cookie: []byte(cookie), Persist: true}, "o=shoal", "title")
	cookie = x.expect("info a3 false true 1", "uid=alice,ou=people,o=shoal 2 title", "info a1 true false 0")
	if err := root.ModifyDN(ldap.NewModifyDNRequest("uid=alice,ou=people,o=shoal", "uid=alicia", true, "")); err != nil {
		t.Fatal(err)
	}
	if next := x.expect("uid=alicia,ou=people,o=shoal 2 title"); next <= cookie || !strings.HasSuffix(next, f.store.ContextCSN()[0]) {
		t.Errorf("cookie %q after %q, contextCSN %v", next, cookie, f.store.ContextCSN())
	}
	if err := root.Del(ldap.NewDelRequest("uid=alicia,ou=people,o=shoal", nil)); err != nil {
		t.Fatal(err)
	}
	x.expect("info a3 false true 1", "info 80 false false 0")
}

// Whoever has the last answer to an operation may use its message id again at once.
func TestMessageIDAgain(t *testing.T) {
	f := start(t, replicas)
	x := f.follower(t, "cn=box1,o=shoal", "boxpass")
	for range 500 {
		x.sync(ldapwire.SyncRequest{}, "o=shoal", "1.1")
		for got := ""; !strings.HasPrefix(got, "done"); {
			if got, _ = x.line(x.next()); strings.HasPrefix(got, "op ") {
				t.Fatal(got)
			}
		}
	}
}

// An older state is put in the place of the content, and changed: its contextCSN is above all cookies that were ever given, yet who has one
// from before must begin anew, for it may know what is gone.
func TestCookieFromBeforeAReplacement(t *testing.T) {
	f := start(t, replicas)
	change := func(title string) {
		t.Helper()
		mod := ldap.NewModifyRequest("uid=alice,ou=people,o=shoal", nil)
		mod.Replace("title", []string{title})
		if err := f.root(t).Modify(mod); err != nil {
			t.Fatal(err)
		}
	}
	sync := func(cookie string) string {
		t.Helper()
		x := f.follower(t, "cn=box1,o=shoal", "boxpass")
		x.sync(ldapwire.SyncRequest{Cookie: []byte(cookie)}, "o=shoal", "title")
		got, _ := x.line(x.next())
		return got
	}
	now := func() string { return "csn=" + f.store.ContextCSN()[0] }
	older := now()
	var backup bytes.Buffer
	if _, err := f.store.Export(t.Context(), &backup, nil); err != nil {
		t.Fatal(err)
	}
	change("lost")
	newer := now()
	if _, err := f.store.Import(t.Context(), "cn=admin,o=shoal", &backup, nil); err != nil {
		t.Fatal(err)
	}
	change("after")
	for _, cookie := range []string{older, newer} {
		if got := sync(cookie); got != ldapwire.SyncRefreshRequired.String() {
			t.Errorf("with %s: %s", cookie, got)
		}
	}
	cookie := now()
	change("later")
	if got := sync(cookie); got != "uid=alice,ou=people,o=shoal 2 title" && !strings.HasPrefix(got, "info a3") {
		t.Errorf("with a cookie of the new content: %s", got)
	}
}

func TestSynchronizationRefused(t *testing.T) {
	f := start(t, replicas)
	for _, c := range []struct {
		name, dn, password, base string
		r                        ldapwire.SyncRequest
		code                     ldapwire.Code
	}{
		{"no right", "uid=alice,ou=people,o=shoal", "alicepass", "o=shoal", ldapwire.SyncRequest{}, ldapwire.InsufficientAccessRights},
		{"no base", "cn=box1,o=shoal", "boxpass", "ou=none,o=shoal", ldapwire.SyncRequest{}, ldapwire.NoSuchObject},
		{"no cookie of ours", "cn=box1,o=shoal", "boxpass", "o=shoal", ldapwire.SyncRequest{Cookie: []byte("csn=yesterday")}, ldapwire.ProtocolError},
		{"future", "cn=box1,o=shoal", "boxpass", "o=shoal", ldapwire.SyncRequest{Cookie: []byte("csn=20991231235959.000000Z#000000#000#000000"), Persist: true}, ldapwire.SyncRefreshRequired},
		{"another server's", "cn=box1,o=shoal", "boxpass", "o=shoal", ldapwire.SyncRequest{Cookie: []byte("csn=20011231235959.000000Z#000000#007#000000")}, ldapwire.SyncRefreshRequired},
	} {
		x := f.follower(t, c.dn, c.password)
		x.sync(c.r, c.base)
		if got, _ := x.line(x.next()); got != c.code.String() {
			t.Errorf("%s: %s, want %s", c.name, got, c.code)
		}
	}
	x := f.follower(t, "cn=box1,o=shoal", "boxpass")
	x.sync(ldapwire.SyncRequest{Cookie: []byte("csn=20991231235959.000000Z#000000#000#000000"), ReloadHint: true}, "ou=people,o=shoal", "1.1")
	if got, _ := x.line(x.next()); got != "ou=people,o=shoal 1" {
		t.Errorf("a client that prefers a whole refresh: %s", got)
	}

	x = f.follower(t, "cn=box1,o=shoal", "boxpass")
	now := (&ldapwire.SyncCookie{CSNs: f.store.ContextCSN()}).Append(nil)
	r := ldapwire.SyncRequest{Cookie: now, Persist: true}
	control := ldapwire.AppendControl(nil, ldapwire.OIDSyncRequest, true, r.Append(nil))
	for i := range int32(maxSyncs) {
		x.send(ldapwire.AppendSearchRequest(nil, 10+i, "o=shoal", ldapwire.WholeSubtree, nil, control))
		x.expect("info a1 true false 0")
	}
	x.send(ldapwire.AppendSearchRequest(nil, 99, "o=shoal", ldapwire.WholeSubtree, nil, control))
	x.expect("busy")
}

// A follower that takes nothing is cut off, and costs no memory meanwhile.
func TestSlowFollower(t *testing.T) {
	f := start(t, replicas, func(o *Options, _ *Listening) { o.Limits.Write = 2 * time.Second })
	x := f.follower(t, "cn=box1,o=shoal", "boxpass")
	x.sync(ldapwire.SyncRequest{Persist: true}, "o=shoal")
	photo := ldapwire.Attribute{Type: []byte("jpegPhoto"), Values: [][]byte{make([]byte, 1<<20)}}
	limit := time.After(25 * time.Second)
	for i := 0; f.server.Connections() > 0; i++ {
		select {
		case <-limit:
			t.Fatal("a client that takes nothing is not cut off")
		default:
		}
		if i < 40 { // more than the kernel's buffers take
			photo.Values[0][0] = byte(i)
			err := f.store.Do("cn=admin,o=shoal", &dirstore.Modify{DN: []byte("uid=bob,ou=people,o=shoal"), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace, Attribute: photo}}})
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		<-time.After(20 * time.Millisecond) // the server looks once a second
	}
}
