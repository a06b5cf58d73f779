package ldapsession

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/scram"
)

// SASL in binds (RFC 4513 §5.2): EXTERNAL by the client certificate or, on a socket of this machine, by who owns the
// process at the other end; PLAIN where a password may be sent; SCRAM, also bound to the TLS connection.
//
// Left out on purpose: security layers, which are TLS's work, and acting for somebody else: an authorization
// identity must be the one that authenticates (proxied authorization is a control of its own).

// SASL says whom names of SASL mean. Every function may be nil: then nobody.
type SASL struct {
	// Name finds the entry that a name of PLAIN or SCRAM means, as normal form of its DN; nil: nobody.
	Name func(r *dirstore.Reader, name string) []byte
	// Certificate finds the DN that a client certificate stands for. The error refuses it.
	Certificate func(r *dirstore.Reader, cs *tls.ConnectionState) (dn string, err error)
	// Peer finds the DN that a user of this machine stands for; "": nobody.
	Peer func(uid uint32) (dn string)
	// ServerCertificate is the certificate (DER) that is shown now; nil: not known.
	ServerCertificate func() []byte
	// Fake gives the key and the iterations of the salts of names that do not exist.
	Fake func(r *dirstore.Reader) (key []byte, iterations int)
}

// exchange is a SASL bind that takes several steps.
type exchange struct {
	mechanism string
	server    *scram.Server
	who       *found // nil: nobody
}

// scramHashes are those of the mechanisms, strongest first.
var scramHashes = []*scram.Hash{scram.SHA256, scram.SHA1}

// mechanisms are those offered on this connection; x is nil for all that there may be.
func (x *session) mechanisms() []string {
	var list []string
	if x.how.Local || x.peerCertificate() {
		list = append(list, "EXTERNAL")
	}
	list = append(list, scram.Mechanisms(len(x.binding()) > 0, scramHashes...)...)
	if x.mayPassword() {
		list = append(list, "PLAIN")
	}
	return list
}

func (x *session) peerCertificate() bool {
	return x.secure != nil && x.s.opt.SASL.Certificate != nil && len(x.secure.ConnectionState().PeerCertificates) > 0
}

// binding gives the channel bindings of the connection.
func (x *session) binding() scram.Binding {
	if x.secure == nil {
		return nil
	}
	cs := x.secure.ConnectionState()
	var der []byte
	if x.s.opt.SASL.ServerCertificate != nil {
		der = x.s.opt.SASL.ServerCertificate()
	}
	return scram.ServerBinding(&cs, der)
}

// bindSASL makes one step of a SASL bind.
func (x *session) bindSASL(w *work) (bound, error) {
	b := &w.bind
	out := bound{mechanism: string(b.Mechanism)}
	if !slices.Contains(x.mechanisms(), out.mechanism) {
		out.mechanism = "other"
		if string(b.Mechanism) == "PLAIN" {
			return out, errNeedTLS
		}
		return out, ldapwire.Errorf(ldapwire.AuthMethodNotSupported, "SASL mechanism %.32q is not offered on this connection", b.Mechanism)
	}
	if b.Version != 3 {
		return out, ldapwire.Errorf(ldapwire.ProtocolError, "LDAP version %d is not supported", b.Version)
	}
	switch out.mechanism {
	case "EXTERNAL":
		return x.bindExternal(w, out)
	case "PLAIN":
		return x.bindPlain(w, out)
	}
	return x.bindScram(w, out)
}

func (x *session) bindExternal(w *work, out bound) (bound, error) {
	r, err := x.read(w)
	if err != nil {
		return out, err
	}
	dn := ""
	if x.how.Local {
		if uid, ok := peerUser(x.conn); ok && x.s.opt.SASL.Peer != nil {
			dn = x.s.opt.SASL.Peer(uid)
		}
	} else {
		cs := x.secure.ConnectionState()
		if dn, err = x.s.opt.SASL.Certificate(r, &cs); err != nil {
			out.why = err.Error()
			return out, errCredentials
		}
	}
	if dn == "" {
		out.why = "EXTERNAL: nobody is known by that"
		return out, errCredentials
	}
	norm, err := x.s.opt.Store.CheckDN([]byte(dn))
	if err != nil {
		return out, err
	}
	if !x.mayActAs(r, string(w.bind.Credentials), norm) {
		return out, errAuthorization
	}
	if bytes.Equal(norm, x.s.rootNorm) {
		out.who = &found{id: identity{dn: x.s.opt.RootDN, norm: x.s.rootNorm, root: true}, root: true}
		return out, nil
	}
	_, who, err := x.candidate(w, norm)
	if err != nil {
		return out, err
	}
	if who == nil {
		out.why = "EXTERNAL: no entry " + dn
		return out, errCredentials
	}
	out.who = who
	return out, x.checkLock(who, &out)
}

// errAuthorization refuses to act for somebody else (RFC 4513 §5.2.1.8).
var errAuthorization = ldapwire.Errorf(ldapwire.InvalidCredentials, "acting for somebody else is not possible")

// mayActAs: authzid = "" / "dn:" dn / "u:" name (RFC 4513 §5.2.1.8). Bare names, which Cyrus SASL sends with
// mechanisms other than EXTERNAL, are taken too.
func (x *session) mayActAs(r *dirstore.Reader, authzid string, norm []byte) bool {
	if authzid == "" {
		return true
	}
	if dn, ok := strings.CutPrefix(authzid, "dn:"); ok {
		want, err := x.s.opt.Store.CheckDN([]byte(dn))
		return err == nil && bytes.Equal(want, norm)
	}
	return bytes.Equal(x.named(r, strings.TrimPrefix(authzid, "u:")), norm)
}

// named finds whom a name means.
func (x *session) named(r *dirstore.Reader, name string) []byte {
	if x.s.opt.SASL.Name == nil || len(name) > 1024 {
		return nil
	}
	return x.s.opt.SASL.Name(r, name)
}

// bindPlain: RFC 4616.
func (x *session) bindPlain(w *work, out bound) (bound, error) {
	if !w.bind.HasCredentials { // RFC 4513 §5.2.1.1 allows to ask; a client-first mechanism is then asked for its message
		out.credentials = []byte{}
		return out, &ldapwire.Error{Code: ldapwire.SASLBindInProgress}
	}
	parts := bytes.Split(w.bind.Credentials, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return out, ldapwire.Errorf(ldapwire.ProtocolError, "malformed credentials of PLAIN")
	}
	r, err := x.read(w)
	if err != nil {
		return out, err
	}
	norm := x.named(r, string(parts[1]))
	if norm != nil && !x.mayActAs(r, string(parts[0]), norm) {
		return out, errAuthorization
	}
	return out, x.checkPassword(w, norm, parts[2], &out)
}

// bindScram: RFC 5802. The first step looks the verifier up, the second checks the proof and gives the server's.
func (x *session) bindScram(w *work, out bound) (bound, error) {
	if !w.bind.HasCredentials && x.exchange == nil {
		out.credentials = []byte{}
		return out, &ldapwire.Error{Code: ldapwire.SASLBindInProgress}
	}
	if x.exchange == nil {
		e := &exchange{mechanism: out.mechanism}
		hash, _ := scram.ByName(out.mechanism)
		server, err := scram.NewServer(out.mechanism, x.binding(), func(name, authzid string) (scram.Verifier, error) {
			return x.scramVerifier(w, hash, e, name, authzid)
		})
		if err != nil {
			return out, ldapwire.Errorf(ldapwire.AuthMethodNotSupported, "%v", err)
		}
		e.server = server
		answer, _, err := server.Next(w.bind.Credentials)
		if err != nil {
			return out, scramError(err, &out)
		}
		x.exchange, out.credentials = e, answer
		return out, &ldapwire.Error{Code: ldapwire.SASLBindInProgress}
	}
	e := x.exchange
	x.exchange = nil
	answer, _, err := e.server.Next(w.bind.Credentials)
	if errors.Is(err, scram.ErrProof) || err == nil && e.who == nil {
		return out, x.wrong(e.who, &out)
	}
	if err != nil {
		return out, scramError(err, &out)
	}
	if err := x.checkLock(e.who, &out); err != nil {
		return out, err
	}
	out.credentials = answer
	return out, x.right(e.who, &out)
}

// scramVerifier finds the verifier of a name. Who has none gets one that nothing matches, and the exchange fails at its
// end, where a wrong password fails.
func (x *session) scramVerifier(w *work, hash *scram.Hash, e *exchange, name, authzid string) (scram.Verifier, error) {
	r, err := x.read(w)
	if err != nil {
		return scram.Verifier{}, err
	}
	norm := x.named(r, name)
	if norm != nil && !x.mayActAs(r, authzid, norm) {
		return scram.Verifier{}, errAuthorization
	}
	_, who, err := x.candidate(w, norm)
	if err != nil {
		return scram.Verifier{}, err
	}
	var none bound
	if who != nil && x.checkLock(who, &none) == nil {
		if v, ok := scram.Find(hash, who.verifiers); ok {
			e.who = who
			return v, nil
		}
	}
	key, iterations := x.s.fakeKey, scram.DefaultIterations
	if x.s.opt.SASL.Fake != nil {
		if k, n := x.s.opt.SASL.Fake(r); len(k) > 0 {
			key, iterations = k, n
		}
	}
	return scram.Fake(hash, key, name, iterations), nil
}

func scramError(err error, out *bound) error {
	var e *ldapwire.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(err, scram.ErrMalformed):
		return ldapwire.Errorf(ldapwire.ProtocolError, "%v", err)
	case errors.Is(err, scram.ErrChannelBinding):
		out.why = err.Error()
		return errCredentials
	}
	return err
}

// rootSecret is the password of the root DN, with verifiers if it is known in clear.
type rootSecret struct {
	stored    string
	verifiers [][]byte
}

func newRootSecret(p string) *rootSecret {
	r := &rootSecret{stored: p}
	if p != "" && !IsHashed([]byte(p)) {
		for _, h := range scramHashes {
			r.verifiers = append(r.verifiers, []byte(scram.New(h, p, scram.DefaultIterations).String()))
		}
	}
	return r
}

func newFakeKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: it ends the process instead
	return key
}

// peerUser is who owns the process at the other end of a Unix socket.
func peerUser(c net.Conn) (uid uint32, ok bool) {
	s, is := c.(syscall.Conn)
	if !is {
		return 0, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid, ok = cred.Uid, true
		}
	})
	return uid, ok && err == nil
}
