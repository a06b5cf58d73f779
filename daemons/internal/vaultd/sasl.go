package vaultd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/scram"
)

// Whom names, certificates and users of this machine stand for in SASL binds (docs/directory.md tells it).

// scramHashes are the SCRAM mechanisms that passwords get verifiers for.
func (p *Password) scramHashes() []*scram.Hash {
	if p.ScramSHA1 {
		return []*scram.Hash{scram.SHA256, scram.SHA1}
	}
	return []*scram.Hash{scram.SHA256}
}

func (v *vault) sasl(c *Config) (s ldapsession.SASL, err error) {
	n := &naming{store: v.store, rootDN: c.RootDN(), suffix: c.Suffix}
	s.Name, s.Fake = n.find, n.fake
	if v.tls != nil {
		s.ServerCertificate = v.tls.Shown
	}
	if c.ClientCAFile != "" {
		if v.clientCA, err = pki.OpenClientCA(c.ClientCAFile, pki.WithClock(v.env.Clock.Now)); err != nil {
			return s, err
		}
	}
	creds, clients, operator := v.env.Creds, v.clientCA, c.OperatorDN
	if creds != nil || clients != nil {
		s.Certificate = func(r *dirstore.Reader, cs *tls.ConnectionState) (string, error) {
			return n.certificate(r, cs, creds, clients, operator)
		}
	}
	if c.Ldapi != nil {
		roots, err := c.Ldapi.users()
		if err != nil {
			return s, err
		}
		s.Peer = func(uid uint32) string {
			if roots[uid] {
				return n.rootDN
			}
			return ""
		}
	}
	return s, nil
}

type naming struct {
	store          *dirstore.Store
	rootDN, suffix string
}

// find: a DN; a mail address, of the account that has it; the name of a server; the name of the root DN.
func (n *naming) find(r *dirstore.Reader, name string) []byte {
	root, err := n.store.CheckDN([]byte(n.rootDN))
	if err != nil || name == "" {
		return nil
	}
	switch {
	case strings.Contains(name, "="):
		norm, err := n.store.CheckDN([]byte(name))
		if err != nil {
			return nil
		}
		return norm
	case strings.Contains(name, "@"):
		return n.account(r, name)
	case bytes.HasPrefix(root, []byte("cn="+strings.ToLower(name)+",")):
		return root
	case strings.ContainsAny(name, `,+"\<>;#`):
		return nil
	}
	norm, err := n.store.CheckDN([]byte("cn=" + name + "," + serversDN(n.suffix)))
	if err != nil {
		return nil
	}
	return norm
}

// account finds the one account that has an address.
func (n *naming) account(r *dirstore.Reader, address string) []byte {
	base, err := n.store.CheckDN([]byte("ou=domains," + n.suffix))
	if err != nil {
		return nil
	}
	for _, attr := range []string{"mailLocalAddress", "mail"} {
		f := ldapwire.Filter{Nodes: []ldapwire.Node{{Op: ldapwire.Equality, End: 1, Attr: []byte(attr), Value: []byte(address)}}}
		var plan dirstore.Search
		if err := r.Start(&plan, base, ldapwire.WholeSubtree, n.store.Compile(&f, nil)); err != nil {
			return nil
		}
		var found []byte
		for {
			e, ok, _, err := r.Next(&plan, 100)
			if err != nil || !ok {
				break
			}
			if r.Value(&e, "shoalAccountId") == "" {
				continue // an alias has no password
			}
			if found != nil {
				return nil // two of them: nobody is meant
			}
			dn, err := r.DN(nil, &e)
			if err != nil {
				return nil
			}
			if found, err = n.store.CheckDN(dn); err != nil {
				return nil
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// certificate: one of the internal CA is a server's or an operator's, one of the clients' CA is that of the account
// with its address.
func (n *naming) certificate(r *dirstore.Reader, cs *tls.ConnectionState, creds *pki.Credentials, clients *pki.ClientCA, operator string) (string, error) {
	if creds != nil {
		role, name, err := creds.Peer(*cs)
		switch {
		case err == nil && role == pki.RoleOperator && operator == "":
			return "", errors.New("certificate of an operator: the setting operator_dn names nobody for it")
		case err == nil && role == pki.RoleOperator:
			return operator, nil
		case err == nil:
			return "cn=" + name + "," + serversDN(n.suffix), nil
		case clients == nil:
			return "", err
		}
	}
	addresses, err := clients.Addresses(cs)
	if err != nil {
		return "", err
	}
	for _, a := range addresses {
		if norm := n.account(r, a); norm != nil {
			return string(norm), nil
		}
	}
	return "", fmt.Errorf("certificate of a client: no account has the address %s", addresses[0])
}

// fake gives the key of the salts of names that do not exist: the same on every server, from the entry that the master made.
func (n *naming) fake(r *dirstore.Reader) ([]byte, int) {
	norm, err := n.store.CheckDN([]byte(scramDN(n.suffix)))
	if err != nil {
		return nil, 0
	}
	id, err := r.Resolve(norm)
	if err != nil {
		return nil, 0
	}
	f, ok, err := r.Get(id)
	if !ok || err != nil {
		return nil, 0
	}
	key, iterations, err := scram.ParseFakeKey(r.Value(&f, "shoalScramKey"))
	if err != nil {
		return nil, 0
	}
	return key, iterations
}

// users gives the uids that are the root DN on the socket.
func (l *Ldapi) users() (map[uint32]bool, error) {
	names := l.RootUsers
	if len(names) == 0 {
		names = []string{"root"}
	}
	uids := map[uint32]bool{}
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("ldapi: root_users: %w", err)
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("ldapi: root_users: user %s: %w", name, err)
		}
		uids[uint32(uid)] = true
	}
	return uids, nil
}

// listen binds the socket. What is left of a server that died is removed; that of one that lives is not.
func (l *Ldapi) listen() (net.Listener, error) {
	if c, err := net.Dial("unix", l.Path); err == nil {
		_ = c.Close() // nothing was sent
		return nil, fmt.Errorf("ldapi: another server listens on %s", l.Path)
	}
	if err := os.Remove(l.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("ldapi: %w", err)
	}
	n, err := net.Listen("unix", l.Path)
	if err != nil {
		return nil, fmt.Errorf("ldapi: %w", err)
	}
	// Everybody on the machine may connect, as to a port; what he may do is decided by who he is.
	if err := os.Chmod(l.Path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("ldapi: %w", err), n.Close())
	}
	return n, nil
}
