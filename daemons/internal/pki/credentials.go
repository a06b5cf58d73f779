package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// checkEvery is how often handshakes look whether the files were replaced.
const checkEvery = 2 * time.Second

// material is what was read from the files at one time; it never changes.
type material struct {
	cert       tls.Certificate
	leaf       *x509.Certificate
	roots      *x509.CertPool // nil for a public certificate
	role, name string
}

// held keeps the material of some files current. Its methods may be called at once.
type held struct {
	settings
	files []string
	read  func() (*material, error)

	cur     atomic.Pointer[material]
	mu      sync.Mutex // guards what follows
	checked time.Time
	seen    []stamp // of the files when they were last read, good or bad
}

// stamp tells one version of a file from another.
type stamp struct {
	inode   uint64
	size    int64
	changed time.Time
}

func stamps(files []string) []stamp {
	all := make([]stamp, len(files))
	for i, name := range files {
		st, err := os.Stat(name)
		if err != nil {
			continue
		}
		all[i] = stamp{size: st.Size(), changed: st.ModTime()}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			all[i].inode = sys.Ino
		}
	}
	return all
}

// reload reads the files again. On an error the old material stays.
func (h *held) reload() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reloadLocked()
}

func (h *held) reloadLocked() error {
	h.seen = stamps(h.files)
	h.checked = h.now()
	m, err := h.read()
	if err != nil {
		return err
	}
	old := h.cur.Load()
	if old != nil && (old.role != m.role || old.name != m.name) {
		return fmt.Errorf("certificate file %s is now of %s, but this is %s: restart to change identity",
			h.files[0], describe(m.leaf), describe(old.leaf))
	}
	h.cur.Store(m)
	if old != nil && !old.leaf.Equal(m.leaf) {
		h.log.Info("certificate replaced", "file", h.files[0], "identity", describe(m.leaf), "expires", m.leaf.NotAfter)
	}
	return nil
}

// current returns the material of this moment; it looks at the files now and then.
func (h *held) current() *material {
	if h.mu.TryLock() {
		defer h.mu.Unlock()
		if now := h.now(); now.Sub(h.checked) >= checkEvery || now.Before(h.checked) {
			h.checked = now
			if !slices.Equal(stamps(h.files), h.seen) {
				if err := h.reloadLocked(); err != nil {
					h.log.Error("replaced certificate refused, the old one stays", "error", err)
				}
			}
		}
	}
	return h.cur.Load()
}

// Credentials are the identity of this server, kept current with its files. All methods may be called
// at once.
type Credentials struct {
	held
	ca string // file
}

// Load reads and checks the files of an identity: all there, key of the certificate, signed by the CA,
// within its dates, with an identity in it. The error names the file and what to do.
func Load(files Files, opts ...Option) (*Credentials, error) {
	c := &Credentials{held: held{settings: newSettings(opts), files: []string{files.Cert, files.Key, files.CA}}, ca: files.CA}
	c.read = func() (*material, error) { return readIdentity(files, c.now()) }
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload reads the files now. On an error nothing changes.
func (c *Credentials) Reload() error { return c.reload() }

// Role and Name are this server's own.
func (c *Credentials) Role() string { return c.cur.Load().role }

// Name is the name of this server in its certificate.
func (c *Credentials) Name() string { return c.cur.Load().name }

// NotAfter is when the certificate in use expires.
func (c *Credentials) NotAfter() time.Time { return c.cur.Load().leaf.NotAfter }

// readPair reads certificate and key and checks them as far as that is the same for all uses.
func readPair(certFile, keyFile string, now time.Time) (*material, []*x509.Certificate, error) {
	certs, err := readCerts(certFile)
	if err != nil {
		return nil, nil, err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, nil, err
	}
	if err := matches(certs[0], key, certFile, keyFile); err != nil {
		return nil, nil, err
	}
	if err := validNow(certs[0], certFile, now); err != nil {
		return nil, nil, err
	}
	m := &material{leaf: certs[0], cert: tls.Certificate{PrivateKey: key, Leaf: certs[0]}}
	for _, c := range certs {
		m.cert.Certificate = append(m.cert.Certificate, c.Raw)
	}
	return m, certs, nil
}

func readIdentity(files Files, now time.Time) (*material, error) {
	m, certs, err := readPair(files.Cert, files.Key, now)
	if err != nil {
		return nil, err
	}
	cas, err := readCerts(files.CA)
	if err != nil {
		return nil, err
	}
	m.roots = x509.NewCertPool()
	for i, ca := range cas {
		if !ca.IsCA {
			return nil, fmt.Errorf("certificate file %s: certificate %d (%s) is not of a CA", files.CA, i+1, describe(ca))
		}
		m.roots.AddCert(ca)
	}
	if len(cas) == 1 { // of several, one may be on its way out
		if err := validNow(cas[0], files.CA, now); err != nil {
			return nil, err
		}
	}
	if m.role, m.name, err = identity(certs[0]); err != nil {
		return nil, fmt.Errorf("certificate file %s (%s): %w", files.Cert, describe(certs[0]), err)
	}
	if _, err := certs[0].Verify(verifyOptions(m.roots, certs[1:], now, x509.ExtKeyUsageAny)); err != nil {
		return nil, faultf(ErrWrongCA, "certificate file %s (%s) was not signed by the CA in %s: install the CA that issued it, or have it issued anew (%v)",
			files.Cert, describe(certs[0]), files.CA, err)
	}
	return m, nil
}

func verifyOptions(roots *x509.CertPool, chain []*x509.Certificate, now time.Time, usage x509.ExtKeyUsage) x509.VerifyOptions {
	o := x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
		Intermediates: x509.NewCertPool(),
	}
	for _, c := range chain {
		o.Intermediates.AddCert(c)
	}
	return o
}

// ServerTLS is the configuration of a listener that demands a certificate of the internal CA carrying one
// of the roles. It is used as it is; NextProtos may be set.
func (c *Credentials) ServerTLS(roles ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The chain is verified in VerifyConnection, against the CA of this moment: TLS itself would
		// use the one of the time when this configuration was made, and not look at resumed sessions.
		ClientAuth:       tls.RequireAnyClientCert,
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.current().cert, nil },
		VerifyConnection: func(cs tls.ConnectionState) error { return c.verify(cs, x509.ExtKeyUsageClientAuth, roles) },
		Time:             c.now,
	}
}

// ServerTLSOptional is ServerTLS for a listener that also serves peers without a certificate: it must ask
// PeerIdentity before it does anything for a peer that needs one. A certificate that is shown must be good.
func (c *Credentials) ServerTLSOptional(roles ...string) *tls.Config {
	config := c.ServerTLS(roles...)
	demand := config.VerifyConnection
	config.ClientAuth = tls.RequestClientCert
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		return demand(cs)
	}
	return config
}

// ClientTLS is the configuration of a connection to a server of ours that must carry one of the roles.
// Its host name is not compared: role and name are who it is (see PeerIdentity).
func (c *Credentials) ClientTLS(roles ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Verification by host name is replaced, not left out: VerifyConnection checks chain and role.
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.current().cert, nil },
		VerifyConnection:     func(cs tls.ConnectionState) error { return c.verify(cs, x509.ExtKeyUsageServerAuth, roles) },
		Time:                 c.now,
	}
}

// verify checks a peer's chain and role; TLS calls it for full and for resumed handshakes.
func (c *Credentials) verify(cs tls.ConnectionState, usage x509.ExtKeyUsage, roles []string) error {
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("peer: %w", ErrNoIdentity)
	}
	leaf, now := cs.PeerCertificates[0], c.now()
	if _, err := leaf.Verify(verifyOptions(c.current().roots, cs.PeerCertificates[1:], now, usage)); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			if now.Before(leaf.NotBefore) {
				return faultf(ErrNotYetValid, "certificate of peer %s is valid from %s only: check the clocks",
					describe(leaf), leaf.NotBefore.UTC().Format(layout))
			}
			return faultf(ErrExpired, "certificate of peer %s expired on %s: renew it there", describe(leaf), leaf.NotAfter.UTC().Format(layout))
		}
		return faultf(ErrWrongCA, "certificate of peer %s is not accepted by the CA in %s: %v", describe(leaf), c.ca, err)
	}
	role, _, err := identity(leaf)
	if err != nil {
		return fmt.Errorf("peer %s: %w", describe(leaf), err)
	}
	if !slices.Contains(roles, role) {
		return fmt.Errorf("peer %s: %w: wanted %s", describe(leaf), ErrWrongRole, strings.Join(roles, " or "))
	}
	return nil
}

// Public is the certificate shown to clients from outside, kept current with its files.
type Public struct {
	held
}

// OpenPublic reads and checks a certificate and its key. The error names the file and what to do.
func OpenPublic(certFile, keyFile string, opts ...Option) (*Public, error) {
	p := &Public{held{settings: newSettings(opts), files: []string{certFile, keyFile}}}
	p.read = func() (*material, error) {
		m, _, err := readPair(certFile, keyFile, p.now())
		return m, err
	}
	if err := p.reload(); err != nil {
		return nil, err
	}
	return p, nil
}

// Reload reads the files now. On an error nothing changes.
func (p *Public) Reload() error { return p.reload() }

// NotAfter is when the certificate in use expires.
func (p *Public) NotAfter() time.Time { return p.cur.Load().leaf.NotAfter }

// TLS is the configuration of a listener for clients, who show no certificate.
func (p *Public) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &p.current().cert, nil },
		Time:           p.now,
	}
}

// LoadPublic is OpenPublic and TLS in one.
func LoadPublic(certFile, keyFile string, opts ...Option) (*tls.Config, error) {
	p, err := OpenPublic(certFile, keyFile, opts...)
	if err != nil {
		return nil, err
	}
	return p.TLS(), nil
}
