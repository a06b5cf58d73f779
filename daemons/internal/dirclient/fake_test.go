package dirclient

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/pki"
	"shoal/tests/ports"
)

// act is what the fake server does with a request instead of answering it.
type act int

const (
	answer    act = iota
	hang          // keep the connection open and say nothing
	cut           // close the connection
	busy          // say "busy"
	garbage       // send what is no LDAP message
	flood         // send an answer without end
	referral      // say that the master should be asked
	noSuchDN      // say that the base is not there
	sizeLimit     // say that there is more
)

// fake is a small LDAP server with a script: what real servers do only in bad moments.
type fake struct {
	t    *testing.T
	l    net.Listener
	tls  *tls.Config
	ldap bool // StartTLS is demanded instead of TLS from the start

	mu       sync.Mutex
	entries  []Entry
	script   func(op, what string) act // nil: answer
	requests []string                  // "op what (bound as)"
	master   string                    // where referral sends
	conns    map[net.Conn]bool
	closed   bool
	done     sync.WaitGroup
}

// world is what the tests of one service share: its CA, the client's identity, its password file.
type world struct {
	ca    *pki.CA
	vault *pki.Credentials
	box   *pki.Credentials
	pw    string
}

const serviceDN = "cn=box1,ou=servers,ou=config,o=shoal"

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.NewCA(pki.CAOptions{})
	must(t, err)
	must(t, ca.Save(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")))
	w := &world{ca: ca, pw: filepath.Join(dir, "password")}
	must(t, pki.WriteFile(w.pw, []byte("service secret\n"), 0o600))
	load := func(role, name string) *pki.Credentials {
		pair, err := ca.Issue(pki.Request{Role: role, Name: name, Hosts: []string{"127.0.0.1"}})
		must(t, err)
		cert, key := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
		must(t, pair.Save(cert, key))
		c, err := pki.Load(pki.Files{Cert: cert, Key: key, CA: filepath.Join(dir, "ca.crt")})
		must(t, err)
		return c
	}
	w.vault, w.box = load(pki.RoleVault, "vault1"), load(pki.RoleBox, "box1")
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serverTLS is what a directory server shows: no client certificate is asked for.
func (w *world) serverTLS() *tls.Config {
	c := w.vault.ServerTLS()
	c.ClientAuth, c.VerifyConnection = tls.NoClientCert, nil
	return c
}

// start runs a fake server with the entries on addr ("127.0.0.1:0": any port).
func (w *world) start(t *testing.T, addr string, entries ...Entry) *fake {
	t.Helper()
	if addr == "127.0.0.1:0" {
		addr = ports.One(t) // so that it can be started again at the same address
	}
	l, err := net.Listen("tcp", addr)
	must(t, err)
	f := &fake{t: t, l: l, tls: w.serverTLS(), entries: entries, conns: map[net.Conn]bool{}, master: "ldaps://127.0.0.1:1"}
	f.done.Add(1)
	go f.accept()
	t.Cleanup(f.stop)
	return f
}

func (f *fake) uri() string {
	if f.ldap {
		return "ldap://" + f.l.Addr().String()
	}
	return "ldaps://" + f.l.Addr().String()
}

// stop is what a killed process looks like from outside.
func (f *fake) stop() {
	f.mu.Lock()
	f.closed = true
	_ = f.l.Close()
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.done.Wait()
}

// cutIdle closes the connections, as an idle time-out does, and goes on.
func (f *fake) cutIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
	}
}

func (f *fake) setScript(s func(op, what string) act) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = s
}

func (f *fake) always(a act) { f.setScript(func(string, string) act { return a }) }

func (f *fake) set(entries ...Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = entries
}

// log returns the requests so far that begin with prefix.
func (f *fake) log(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, r := range f.requests {
		if strings.HasPrefix(r, prefix) {
			out = append(out, r)
		}
	}
	return out
}

func (f *fake) accept() {
	defer f.done.Done()
	for {
		c, err := f.l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			_ = c.Close()
			return
		}
		f.conns[c] = true
		f.done.Add(1)
		f.mu.Unlock()
		go func() {
			defer f.done.Done()
			defer func() {
				_ = c.Close()
				f.mu.Lock()
				delete(f.conns, c)
				f.mu.Unlock()
			}()
			f.serve(c)
		}()
	}
}

func (f *fake) serve(raw net.Conn) {
	c := raw
	f.mu.Lock()
	plain := f.ldap
	f.mu.Unlock()
	if !plain {
		c = tls.Server(raw, f.tls)
	}
	in := bufio.NewReader(c)
	who := ""
	for {
		frame, err := readFrame(in)
		if err != nil {
			return
		}
		var m ldapwire.Message
		if err := m.Parse(frame, ldapwire.DefaultLimits); err != nil {
			f.t.Errorf("fake directory: %v", err)
			return
		}
		var what string
		var search ldapwire.Search
		var bind ldapwire.Bind
		switch m.Op {
		case ldapwire.OpBindRequest:
			must(f.t, bind.Parse(m.Body))
			what = string(bind.Name)
		case ldapwire.OpSearchRequest:
			must(f.t, search.Parse(m.Body, ldapwire.DefaultLimits))
			what = string(search.Base) + " " + search.Filter.String()
		case ldapwire.OpExtendedRequest:
			f.mu.Lock()
			f.requests = append(f.requests, "extended")
			f.mu.Unlock()
			_, err := c.Write(ldapwire.AppendExtended(nil, m.ID, &ldapwire.Result{}, ldapwire.OIDStartTLS, nil, nil))
			must(f.t, err)
			c = tls.Server(raw, f.tls)
			in = bufio.NewReader(c)
			continue
		case ldapwire.OpAddRequest:
			var add ldapwire.Add
			must(f.t, add.Parse(m.Body, ldapwire.DefaultLimits))
			what = string(add.DN)
		}
		f.mu.Lock()
		f.requests = append(f.requests, m.Op.String()+" "+what+" ("+who+")")
		a := answer
		if f.script != nil {
			a = f.script(m.Op.String(), what)
		}
		entries := f.entries
		f.mu.Unlock()
		out, ok := f.reply(c, &m, a, entries, &search, &bind, &who)
		if !ok {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// reply makes the answer; ok is false when the connection has to end.
func (f *fake) reply(c net.Conn, m *ldapwire.Message, a act, entries []Entry, search *ldapwire.Search, bind *ldapwire.Bind, who *string) (out []byte, ok bool) {
	code := ldapwire.Success
	var refs []string
	switch a {
	case hang:
		return nil, true
	case cut:
		return nil, false
	case busy:
		code = ldapwire.Busy
	case garbage:
		return []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), true
	case referral:
		code, refs = ldapwire.Referral, []string{f.master}
	case noSuchDN:
		code = ldapwire.NoSuchObject
	case sizeLimit:
		code = ldapwire.SizeLimitExceeded
	case flood:
		big := Entry{DN: "cn=x", Attributes: []Attribute{{"cn", []string{strings.Repeat("x", 1<<20)}}}}
		chunk := appendEntry(nil, m.ID, big)
		for {
			if _, err := c.Write(chunk); err != nil {
				return nil, false
			}
		}
	}
	if m.Op == ldapwire.OpBindRequest && a == answer {
		*who = ""
		if pw := f.password(entries, string(bind.Name)); pw == "" || pw != string(bind.Password) {
			code = ldapwire.InvalidCredentials
		} else {
			*who = string(bind.Name)
		}
	}
	if m.Op == ldapwire.OpSearchRequest && (a == answer || a == sizeLimit) {
		for _, e := range entries {
			if e.within(string(search.Base), search.Scope) && e.matches(&search.Filter, 0) {
				out = appendEntry(out, m.ID, e)
			}
		}
	}
	return ldapwire.AppendResponse(out, m.ID, m.Op.Response(), &ldapwire.Result{Code: code, Referrals: refs}), true
}

func (f *fake) password(entries []Entry, dn string) string {
	if dn == serviceDN {
		return "service secret"
	}
	for _, e := range entries {
		if e.DN == dn {
			return e.First("userPassword")
		}
	}
	return ""
}

func readFrame(in *bufio.Reader) ([]byte, error) {
	for n := 2; ; n++ {
		head, err := in.Peek(n)
		if err != nil {
			return nil, err
		}
		size, err := ldapwire.Frame(head, 1<<20)
		if err != nil {
			return nil, err
		}
		if size > 0 {
			frame := make([]byte, size)
			_, err := io.ReadFull(in, frame)
			return frame, err
		}
	}
}

func appendEntry(out []byte, id int32, e Entry) []byte {
	var attrs []byte
	for _, a := range e.Attributes {
		if a.Name == "userPassword" {
			continue
		}
		var vals [][]byte
		for _, v := range a.Values {
			vals = append(vals, []byte(v))
		}
		attrs = ldapwire.AppendAttribute(attrs, a.Name, vals)
	}
	out = ldapwire.AppendEntryStart(out, id, len(e.DN), len(attrs), 0)
	out = append(out, e.DN...)
	out = ldapwire.AppendEntryAttributes(out, len(attrs))
	return ldapwire.AppendEntryEnd(append(out, attrs...), nil)
}

func (e *Entry) within(base string, scope ldapwire.Scope) bool {
	switch scope {
	case ldapwire.BaseObject:
		return e.DN == base
	case ldapwire.SingleLevel:
		_, parent, _ := strings.Cut(e.DN, ",")
		return parent == base
	}
	return strings.HasSuffix(e.DN, base)
}

func (e *Entry) matches(f *ldapwire.Filter, i int) bool {
	n := f.Nodes[i]
	switch n.Op {
	case ldapwire.And, ldapwire.Or:
		for j := i + 1; j < n.End; j = f.Nodes[j].End {
			if e.matches(f, j) == (n.Op == ldapwire.Or) {
				return n.Op == ldapwire.Or
			}
		}
		return n.Op == ldapwire.And
	case ldapwire.Equality:
		return slices.ContainsFunc(e.Get(string(n.Attr)), func(v string) bool { return bytes.EqualFold([]byte(v), n.Value) })
	case ldapwire.Present:
		return len(e.Get(string(n.Attr))) > 0 || strings.EqualFold(string(n.Attr), "objectClass")
	}
	return false
}

// client makes a Client of the fakes with a clock that stands still.
func (w *world) client(t *testing.T, change func(*Options), fakes ...*fake) (*Client, *clock.Fake) {
	t.Helper()
	clk := clock.NewFake(time.Unix(1e9, 0))
	o := Options{
		BindDN: serviceDN, PasswordFile: w.pw, TLS: w.box.ClientTLS(pki.RoleVault), Clock: clk,
		Metrics: prometheus.NewRegistry(), DialTimeout: 5 * time.Second, Timeout: 10 * time.Second,
		AttemptTimeout: 200 * time.Millisecond,
	}
	for _, f := range fakes {
		o.URIs = append(o.URIs, f.uri())
	}
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c, clk
}

// Some entries.
func sampleDomain(t *testing.T, name string) Entry {
	t.Helper()
	e, err := NewDomain{Name: name, DefaultVolume: "vol01"}.Entry("o=shoal")
	must(t, err)
	return e
}

func sampleAccount(t *testing.T, n NewAccount) Entry {
	t.Helper()
	if n.Volume == "" {
		n.Volume = "vol01"
	}
	e, err := n.Entry("o=shoal", time.Unix(1e9, 0))
	must(t, err)
	return e
}

// metric reads a counter or gauge of a client by its name without "shoal_dirclient_" and its label values in order.
func metric(t *testing.T, c *Client, name string, labels ...string) float64 {
	t.Helper()
	families, err := c.opt.Metrics.(*prometheus.Registry).Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() != "shoal_dirclient_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetValue())
			}
			if slices.Equal(got, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}
