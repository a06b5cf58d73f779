package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// counted is how many operations the traced run makes.
const counted = 200

func recipients(domain string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("user%d@%s", i, domain))
	}
	return out
}

// mailRun warms the server up, measures the load, then counts calls in a short run of its own.
func (b *bench) mailRun(t *tree, server string, l mailLoad, after func(n int) error) (row, error) {
	r := row{Server: server, Load: fmt.Sprintf("%d messages of %d bytes, %d sessions", l.messages, l.size, l.sessions)}
	sent := 0
	do := func(n int) func() error {
		return func() error {
			run := l
			run.messages = n
			if err := run.run(); err != nil {
				return err
			}
			sent += n
			if after != nil {
				return after(sent)
			}
			return nil
		}
	}
	if err := do(l.messages / 10)(); err != nil {
		return r, fmt.Errorf("%s, warming up: %w", server, err)
	}
	m, err := t.measure(do(l.messages))
	if err != nil {
		return r, fmt.Errorf("%s: %w", server, err)
	}
	r.Values = m.per(l.messages)
	c, err := t.count(b.dir, do(counted))
	if err != nil {
		return r, fmt.Errorf("%s, counting: %w", server, err)
	}
	c.add(r.Values, counted)
	return r, nil
}

// benchLMTP delivers to 50 mailboxes, alone and 8 at once.
func benchLMTP(b *bench) ([]row, error) {
	shoal, err := b.shoal()
	if err != nil {
		return nil, err
	}
	defer shoal.stop()
	dovecot, err := b.dovecot()
	if err != nil {
		return nil, err
	}
	defer dovecot.stop()
	var rows []row
	for _, sessions := range []int{b.sessions, 1} {
		l := mailLoad{lmtp: true, sessions: sessions, messages: b.messages, size: 4096, recipients: recipients("bench.test", 50)}
		if sessions == 1 {
			l.messages /= 4
		}
		l.addr, l.tls = shoal.lmtp, shoal.lmtpTLS
		r, err := b.mailRun(shoal.box, "boxd", l, nil)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
		l.addr, l.tls = dovecot.lmtp, nil
		if r, err = b.mailRun(dovecot.tree, "Dovecot (Maildir)", l, nil); err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// benchSMTP sends through each switch into the same sink and waits until everything has arrived there.
func benchSMTP(b *bench) ([]row, error) {
	shoal, err := b.shoal()
	if err != nil {
		return nil, err
	}
	defer shoal.stop()
	to, err := newSink(shoal.sinkTLS)
	if err != nil {
		return nil, err
	}
	defer to.l.Close()
	sw, err := shoal.switchTo(b, to.addr)
	if err != nil {
		return nil, err
	}
	postfix, err := b.postfix(to.addr)
	if err != nil {
		return nil, err
	}
	defer postfix.stop()
	var rows []row
	l := mailLoad{sessions: b.sessions, messages: b.messages, size: 4096, recipients: recipients("bench.test", 50), perSession: 50}
	for _, p := range []struct {
		name, addr string
		t          *tree
	}{{"switchd", sw.addr, sw.tree}, {"Postfix", postfix.smtp, postfix.tree}} {
		l.addr = p.addr
		start := to.count.Load()
		r, err := b.mailRun(p.t, p.name, l, func(n int) error { return to.waitCount(start + int64(n)) })
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	// The whole path, into the mailbox: both daemons are measured at once, each in its own row.
	sw.stop()
	if sw, err = shoal.switchTo(b, shoal.lmtp); err != nil {
		return rows, err
	}
	l.addr = sw.addr
	before, err := shoal.box.cpu()
	if err != nil {
		return rows, err
	}
	r, err := b.mailRun(sw.tree, "switchd (whole path)", l, nil)
	if err != nil {
		return rows, err
	}
	after, err := shoal.box.cpu()
	if err != nil {
		return rows, err
	}
	r.Load += ", into the mailbox"
	r.Values["CPU µs per op in boxd"] = float64((after - before).Microseconds()) / float64(l.messages+l.messages/10+counted)
	return append(rows, r), nil
}

var ldapAttributes = []string{"cn", "sn", "givenName", "mail", "uid", "displayName", "telephoneNumber", "employeeNumber"}

// ldapEntry is entry n as LDIF, the same for both servers.
func ldapEntry(n int) string {
	return fmt.Sprintf(`dn: uid=user%[1]d,ou=people,%[2]s
objectClass: inetOrgPerson
uid: user%[1]d
cn: User Number %[1]d
sn: Number%[1]d
givenName: User
displayName: User Number %[1]d
mail: user%[1]d@bench.test
telephoneNumber: +1 555 %07[1]d
employeeNumber: %[1]d

`, n, ldapSuffix)
}

func writeLDIF(path string, entries int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "dn: %[1]s\nobjectClass: organization\no: bench\n\ndn: ou=people,%[1]s\nobjectClass: organizationalUnit\nou: people\n\n", ldapSuffix)
	for i := range entries {
		fmt.Fprint(w, ldapEntry(i))
	}
	return w.Flush()
}

// benchLDAP searches unpipelined and 16 deep.
func benchLDAP(b *bench) ([]row, error) {
	vault, err := b.vault()
	if err != nil {
		return nil, err
	}
	defer vault.stop()
	slapd, err := b.slapd()
	if err != nil {
		return nil, err
	}
	defer slapd.stop()
	var rows []row
	for _, l := range []struct {
		name string
		r    reading
	}{{"vaultd", vault.load}, {"slapd (mdb)", slapd.load}} {
		r := row{Server: l.name, Load: fmt.Sprintf("bulk load of %d entries (vaultd -import, slapadd -q)", b.entries), Values: l.r.per(b.entries)}
		delete(r.Values, "disk flushes per op")
		rows = append(rows, r)
	}
	for _, depth := range []int{1, 16} {
		for _, p := range []struct {
			name, addr string
			t          *tree
		}{{"vaultd", vault.addr, vault.tree}, {"slapd (mdb)", slapd.addr, slapd.tree}} {
			l := ldapLoad{addr: p.addr, bindDN: ldapAdmin, pass: "bench", base: ldapSuffix, connections: 16,
				depth: depth, entries: b.entries, attributes: ldapAttributes}
			r := row{Server: p.name, Load: fmt.Sprintf("%d entries, 16 connections, %d in flight on each", b.entries, depth)}
			conns, err := l.open()
			if err == nil {
				err = l.run(conns, b.entries/5)
			}
			if err != nil {
				return rows, fmt.Errorf("%s, warming up: %w", p.name, err)
			}
			m, err := p.t.measure(func() error { return l.run(conns, b.entries) })
			for _, c := range conns {
				c.Close()
			}
			if err != nil {
				return rows, fmt.Errorf("%s: %w", p.name, err)
			}
			r.Values = m.per(b.entries)
			delete(r.Values, "disk flushes per op")
			rss, err := p.t.pss()
			if err != nil {
				return rows, err
			}
			r.Values["memory MiB"] = float64(rss) / (1 << 20)
			rows = append(rows, r)
		}
	}
	for _, more := range []func(*vaultPeer, *slapdPeer) ([]row, error){b.ldapBinds, b.ldapWrites, b.ldapIdle} {
		r, err := more(vault, slapd)
		rows = append(rows, r...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// idleSessions logs n connections in, selects INBOX and goes IDLE on each.
func idleSessions(addr, pass string, user func(i int) string, n int) ([]net.Conn, error) {
	var conns []net.Conn
	for i := range n {
		c, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			return conns, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, c)
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		r := bufio.NewReader(c)
		for _, step := range []struct{ send, want string }{
			{"", "* OK"}, {"a LOGIN " + user(i) + " " + pass + "\r\n", "a OK"}, {"b SELECT INBOX\r\n", "b OK"}, {"c IDLE\r\n", "+ "},
		} {
			if _, err := c.Write([]byte(step.send)); err != nil {
				return conns, err
			}
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return conns, fmt.Errorf("connection %d after %q: %w", i, step.send, err)
				}
				if strings.HasPrefix(line, step.want) {
					break
				}
				if strings.HasPrefix(line, step.want[:1]+" NO") || strings.HasPrefix(line, step.want[:1]+" BAD") {
					return conns, fmt.Errorf("connection %d: %s", i, strings.TrimSpace(line))
				}
			}
		}
	}
	return conns, nil
}

// benchIdle holds connections in IDLE with a mailbox selected and divides the tree's memory by their number.
func benchIdle(b *bench) ([]row, error) {
	shoal, err := b.shoal()
	if err != nil {
		return nil, err
	}
	defer shoal.stop()
	dovecot, err := b.dovecot()
	if err != nil {
		return nil, err
	}
	defer dovecot.stop()
	var rows []row
	for _, p := range []struct {
		name, addr, pass string
		t                *tree
		n                int
	}{{"boxd", shoal.imap, shoal.password, shoal.box, b.idle}, {"Dovecot", dovecot.imap, "bench", dovecot.tree, b.idle / 10}} {
		user := func(i int) string { return fmt.Sprintf("user%d@bench.test", i) } // a mailbox for each
		warm, err := idleSessions(p.addr, p.pass, user, 1)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", p.name, err)
		}
		before, err := p.t.pss()
		if err != nil {
			return rows, err
		}
		conns, err := idleSessions(p.addr, p.pass, user, p.n)
		if err == nil {
			time.Sleep(3 * time.Second) // let collectors and login processes settle
			var after int64
			if after, err = p.t.pss(); err == nil {
				c0, _ := p.t.cpu()
				time.Sleep(10 * time.Second)
				c1, _ := p.t.cpu()
				rows = append(rows, row{Server: p.name, Load: "plain, a mailbox for each, INBOX selected, IDLE", Values: map[string]float64{
					"connections": float64(p.n), "KiB per connection": float64(after-before) / 1024 / float64(p.n),
					"idle CPU ms per s": float64((c1 - c0).Milliseconds()) / 10,
				}})
			}
		}
		for _, c := range append(conns, warm...) {
			c.Close()
		}
		if err != nil {
			return rows, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return rows, nil
}
