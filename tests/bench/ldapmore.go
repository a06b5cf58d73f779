package main

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/go-ldap/ldap/v3"
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

// ldapEach runs f on several connections at once, n calls in all.
func ldapEach(addr string, connections, n int, f func(c *ldap.Conn, i int) error) error {
	errs := make(chan error, connections)
	var all sync.WaitGroup
	for w := range connections {
		all.Add(1)
		go func() {
			defer all.Done()
			c, err := ldapDial(addr)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			for i := w; i < n; i += connections {
				if err := f(c, i); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	all.Wait()
	close(errs)
	return <-errs
}

// ldapBinds binds on one connection again and again: with one right password, which a server may remember, and with others.
// The password is of a scheme that both servers know, so that it is the bind that is measured, not argon2id.
func (b *bench) ldapBinds(vault *vaultPeer, slapd *slapdPeer) ([]row, error) {
	const binds = 2000
	return ldapSides(vault, slapd, func(_, addr string, t *tree) (row, error) {
		r := row{Load: "bind with a right password of an {SSHA} hash, 8 connections"}
		dn := "uid=user1,ou=people," + ldapSuffix
		c, err := ldapDial(addr)
		if err != nil {
			return r, err
		}
		defer c.Close()
		set := ldap.NewModifyRequest(dn, nil)
		set.Replace("userPassword", []string{"{SSHA}9B6hfOdWrxYTWhqU/y7a7V+BvyYySWxlYmVuY2g="})
		if err := c.Modify(set); err != nil {
			return r, err
		}
		m, err := t.measure(func() error {
			return ldapEach(addr, 8, binds, func(c *ldap.Conn, _ int) error {
				// A wrong password is as dear: what counts is that each bind is answered.
				if err := c.Bind(dn, "bench"); err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
					return err
				}
				return nil
			})
		})
		r.Values = m.per(binds)
		delete(r.Values, "disk flushes per op")
		return r, err
	})
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
			m, err := t.measure(func() error { return ldapEach(addr, 8, writes, w.do) })
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
