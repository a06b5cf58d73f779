package replica_test

import (
	"crypto/tls"
	"net"
	"sync"
	"testing"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/replica"
)

// scripted is a provider that answers a synchronization with what a test says.
type scripted struct {
	t      *testing.T
	l      net.Listener
	auth   *authority
	answer func(cookie string, id int32) []byte
	done   sync.WaitGroup

	mu      sync.Mutex
	cookies []string // of the synchronizations asked for
	asked   chan struct{}
}

func newScripted(t *testing.T, answer func(cookie string, id int32) []byte) *scripted {
	t.Helper()
	p := &scripted{t: t, auth: newAuthority(t), answer: answer, asked: make(chan struct{}, 100)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p.l = tls.NewListener(l, p.auth.server)
	p.done.Go(func() {
		for {
			c, err := p.l.Accept()
			if err != nil {
				return
			}
			p.done.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() { p.l.Close(); p.done.Wait() })
	return p
}

func (p *scripted) serve(c net.Conn) {
	defer c.Close()
	var held []byte
	b := make([]byte, 4096)
	for {
		n, err := ldapwire.Frame(held, 1<<20)
		if err != nil {
			p.t.Error(err)
			return
		}
		if n == 0 || n > len(held) {
			k, err := c.Read(b)
			if err != nil {
				return
			}
			held = append(held, b[:k]...)
			continue
		}
		var m ldapwire.Message
		if err := m.Parse(held[:n:n], ldapwire.Limits{}); err != nil {
			p.t.Error(err)
			return
		}
		held = held[n:]
		var out []byte
		switch m.Op {
		case ldapwire.OpBindRequest:
			out = ldapwire.AppendResponse(nil, m.ID, ldapwire.OpBindResponse, &ldapwire.Result{})
		case ldapwire.OpSearchRequest:
			if len(m.Controls) == 0 {
				out = ldapwire.AppendResponse(nil, m.ID, ldapwire.OpSearchResultDone, &ldapwire.Result{})
				break
			}
			var r ldapwire.SyncRequest
			if err := r.Parse(m.Controls[0].Value); err != nil {
				p.t.Error(err)
			}
			out = p.answer(string(r.Cookie), m.ID)
			p.mu.Lock()
			p.cookies = append(p.cookies, string(r.Cookie))
			p.mu.Unlock()
			p.asked <- struct{}{}
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

const (
	oldCSN = "20260101000000.000000Z#000000#000#000000"
	newCSN = "20260202000000.000000Z#000000#000#000000"
)

func info(id int32, i ldapwire.SyncInfo) []byte {
	return ldapwire.AppendIntermediate(nil, id, ldapwire.OIDSyncInfo, i.Append(nil))
}

func presentDone(id int32) []byte {
	return info(id, ldapwire.SyncInfo{Kind: ldapwire.SyncRefreshPresent, RefreshDone: true, Cookie: []byte("rid=001,csn=" + newCSN)})
}

func topEntry(id int32, uuid byte) []byte {
	dn, attrs := "o=shoal", ldapwire.AppendAttribute(nil, "objectClass", [][]byte{[]byte("organization"), []byte("top")})
	attrs = ldapwire.AppendAttribute(attrs, "o", [][]byte{[]byte("shoal")})
	attrs = ldapwire.AppendAttribute(attrs, "entryCSN", [][]byte{[]byte(newCSN)})
	control := ldapwire.AppendSyncState(nil, ldapwire.SyncAdd, [16]byte{uuid}, nil)
	b := ldapwire.AppendEntryStart(nil, id, len(dn), len(attrs), len(control))
	b = append(b, dn...)
	b = ldapwire.AppendEntryAttributes(b, len(attrs))
	return ldapwire.AppendEntryEnd(append(b, attrs...), control)
}

// A present phase that lost its list must not empty the shadow.
func TestPresentPhaseWithoutNames(t *testing.T) {
	for _, c := range []struct {
		name   string
		with   func(id int32) []byte
		again  bool // everything is asked for anew
		remain int64
	}{
		{"nothing at all", presentDone, false, 4},
		{"some other entry", func(id int32) []byte {
			set := ldapwire.SyncInfo{Kind: ldapwire.SyncIDSet, UUIDs: [][16]byte{{2}}}
			return append(info(id, set), presentDone(id)...)
		}, true, 4},
		{"an entry that is not here", func(id int32) []byte {
			set := ldapwire.SyncInfo{Kind: ldapwire.SyncIDSet, UUIDs: [][16]byte{{1}, {9}}}
			return append(info(id, set), presentDone(id)...)
		}, true, 4},
		{"the suffix entry only", func(id int32) []byte {
			return append(topEntry(id, 1), presentDone(id)...)
		}, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := true
			p := newScripted(t, func(cookie string, id int32) []byte {
				if !first {
					return nil // says nothing: what is here stays as it is
				}
				first = false
				return c.with(id)
			})
			m := &master{t: t, auth: p.auth, address: p.l.Addr().String()}
			s := &shadow{t: t, m: m, dir: t.TempDir(), dn: "cn=vault2,o=shoal", pass: "x", scheme: "ldaps://"}
			s.store = openStore(t, s.dir)
			entry := func(n byte, dn, class, rdn string) {
				attrs := append(attributes("objectClass", class, rdn, "x"), attributes("entryCSN", oldCSN)...)
				check(t, s.store.Do(root, &dirstore.Replicate{UUID: [16]byte{n}, DN: []byte(dn), Attributes: attrs}))
			}
			entry(1, "o=shoal", "organization", "description")
			entry(2, "ou=a,o=shoal", "organizationalUnit", "description")
			entry(3, "ou=b,ou=a,o=shoal", "organizationalUnit", "description")
			entry(4, "ou=c,o=shoal", "organizationalUnit", "description")
			check(t, s.store.Do(root, &dirstore.Context{CSNs: []string{oldCSN}, Cookie: []byte("rid=001,csn=" + oldCSN)}))
			check(t, s.store.Close())
			s.start()
			t.Cleanup(s.stop)
			<-p.asked
			if c.again {
				<-p.asked
				p.mu.Lock()
				if got := p.cookies[1]; got != "rid=001" {
					t.Errorf("the second cookie is %q", got)
				}
				p.mu.Unlock()
			} else {
				until(t, s.store, "end of the refresh", func() bool { return s.replica.Status().State == replica.Following })
			}
			if n := s.store.Entries(); n != c.remain {
				t.Errorf("%d entries are left, want %d", n, c.remain)
			}
		})
	}
}
