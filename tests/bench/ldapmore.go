package main

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/crypto/argon2"
)

// ldapSides calls run for vaultd and then for slapd.
func ldapSides(vault *vaultPeer, slapd *slapdPeer, run func(name, addr string, t *tree) (row, error)) (rows []row, err error) {
	for _, p := range []struct {
		name, addr string
		t          *tree
	}{{"vaultd", vault.addr, vault.tree}, {"slapd (mdb)", slapd.addr, slapd.tree}} {
		r, err := run(p.name, p.addr, p.t)
		if err != nil {
			return rows, fmt.Errorf("%s: %s: %w", p.name, r.Load, err)
		}
		r.Server = p.name
		rows = append(rows, r)
	}
	return rows, nil
}

func ldapDial(addr string) (*ldap.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	conn := ldap.NewConn(c, false)
	conn.Start()
	return conn, conn.Bind(ldapAdmin, "bench")
}

// ldapEach measures f, called n times over 8 connections, one call at a time on each. Their own binds come before.
func ldapEach(addr string, t *tree, n int, f func(c *ldap.Conn, i int) error) (reading, error) {
	conns := make([]*ldap.Conn, 8)
	for i := range conns {
		c, err := ldapDial(addr)
		if err != nil {
			return reading{}, err
		}
		defer c.Close()
		conns[i] = c
	}
	return t.measure(func() error {
		errs := make(chan error, len(conns))
		var all sync.WaitGroup
		for w, c := range conns {
			all.Go(func() {
				for i := w; i < n; i += len(conns) {
					if err := f(c, i); err != nil {
						errs <- err
						return
					}
				}
			})
		}
		all.Wait()
		close(errs)
		return <-errs
	})
}

// ldapBinds binds over 8 connections: again and again with a password that vaultd may remember and slapd hashes with SHA-1; and once for
// each of many accounts whose argon2id hashes both have to work out, with the cost that vaultd takes for new ones.
func (b *bench) ldapBinds(vault *vaultPeer, slapd *slapdPeer) (rows []row, err error) {
	const again, accounts = 4000, 200
	dn := func(i int) string { return fmt.Sprintf("uid=user%d,ou=people,%s", i, ldapSuffix) }
	salt := []byte("a salt of a bench")
	quick := sha1.Sum(append([]byte("bench"), salt...))
	ssha := "{SSHA}" + base64.StdEncoding.EncodeToString(append(quick[:], salt...))
	const memory, passes = 19 << 10, 2
	slow := make([]string, accounts)
	for i := range slow {
		salt := fmt.Appendf(nil, "salt of number %d", i) // each its own: a server may know a pair of hash and password
		slow[i] = "{ARGON2}" + fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$", memory, passes) + base64.RawStdEncoding.EncodeToString(salt) + "$" +
			base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte("bench"), salt, passes, memory, 1, 32))
	}
	set := func(c *ldap.Conn, i int, hash string) error {
		m := ldap.NewModifyRequest(dn(i), nil)
		m.Replace("userPassword", []string{hash})
		return c.Modify(m)
	}
	for _, w := range []struct {
		load  string
		hash  []string // of each account
		n     int      // binds
		first int
	}{
		{"bind again with the same password ({SSHA} in slapd; argon2id in vaultd, remembered), 8 connections", []string{ssha}, again, 1},
		{"first bind of each account, argon2id with 19 MiB and 2 passes, 8 connections", slow, accounts, 2},
	} {
		r, err := ldapSides(vault, slapd, func(name, addr string, t *tree) (row, error) {
			r := row{Load: w.load}
			c, err := ldapDial(addr)
			if err != nil {
				return r, err
			}
			defer c.Close()
			for i, hash := range w.hash {
				if err := set(c, w.first+i, hash); err != nil {
					return r, err
				}
			}
			if len(w.hash) == 1 {
				if name == "vaultd" { // which would store it so after the first bind
					if err := set(c, w.first, slow[0]); err != nil {
						return r, err
					}
				}
				if err := c.Bind(dn(w.first), "bench"); err != nil {
					return r, err
				}
			}
			m, err := ldapEach(addr, t, w.n, func(c *ldap.Conn, i int) error { return c.Bind(dn(w.first+i%len(w.hash)), "bench") })
			r.Values = m.per(w.n)
			delete(r.Values, "disk flushes per op")
			return r, err
		})
		if rows = append(rows, r...); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// ldapWrites adds entries and modifies them, durable, over 8 connections.
func (b *bench) ldapWrites(vault *vaultPeer, slapd *slapdPeer) (rows []row, err error) {
	const writes = 3000
	name := func(i int) string { return fmt.Sprintf("uid=new%d,ou=people,%s", i, ldapSuffix) }
	for _, w := range []struct {
		load string
		do   func(c *ldap.Conn, i int) error
	}{
		{"durable adds, 8 connections", func(c *ldap.Conn, i int) error {
			add := ldap.NewAddRequest(name(i), nil)
			add.Attribute("objectClass", []string{"inetOrgPerson"})
			for k, v := range map[string]string{"uid": fmt.Sprintf("new%d", i), "cn": fmt.Sprintf("New %d", i), "sn": "New", "mail": fmt.Sprintf("new%d@bench.test", i)} {
				add.Attribute(k, []string{v})
			}
			return c.Add(add)
		}},
		{"durable modifies, 8 connections", func(c *ldap.Conn, i int) error {
			m := ldap.NewModifyRequest(name(i), nil)
			m.Replace("telephoneNumber", []string{fmt.Sprintf("+1 555 %07d", i)})
			return c.Modify(m)
		}},
	} {
		r, err := ldapSides(vault, slapd, func(_, addr string, t *tree) (row, error) {
			r := row{Load: w.load}
			m, err := ldapEach(addr, t, writes, w.do)
			r.Values = m.per(writes)
			return r, err
		})
		if rows = append(rows, r...); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// ldapIdle opens bound connections that ask nothing, and counts what they take.
func (b *bench) ldapIdle(vault *vaultPeer, slapd *slapdPeer) ([]row, error) {
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	n := min(10000, int(limit.Max)-200)
	return ldapSides(vault, slapd, func(name, addr string, t *tree) (row, error) {
		n := n
		if name != "vaultd" {
			n = min(n, 900) // slapd's own bound on descriptors may be 1,024
		}
		r := row{Load: "idle connections, bound", Values: map[string]float64{}}
		before, err := t.pss()
		if err != nil {
			return r, err
		}
		l := ldapLoad{addr: addr, bindDN: ldapAdmin, pass: "bench", connections: n}
		conns, err := l.open()
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		if err != nil {
			return r, err
		}
		time.Sleep(5 * time.Second) // until what the binds left behind is collected
		after, err := t.pss()
		r.Values["connections"] = float64(n)
		r.Values["KiB each"] = float64(after-before) / 1024 / float64(n)
		return r, err
	})
}
