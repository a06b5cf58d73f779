package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
)

// Peer is who is at the other end of a connection whose listener asked for a certificate and let everybody in: role
// and name, once the chain was verified against the CA of this moment. ErrNoIdentity where there is none.
func (c *Credentials) Peer(cs tls.ConnectionState) (role, name string, err error) {
	if role, name, err = PeerIdentity(cs); err != nil {
		return "", "", err
	}
	return role, name, c.verify(cs, x509.ExtKeyUsageClientAuth, []string{role})
}

// Shown is the certificate (DER) that clients are shown now.
func (p *Public) Shown() []byte { return p.current().leaf.Raw }

// ClientCA is the CA of users' certificates. A certificate that it signed, for client authentication, stands for the
// mail addresses in its subject alternative names (rfc822Name, RFC 5280 §4.2.1.6).
type ClientCA struct {
	settings
	file  string
	roots atomic.Pointer[x509.CertPool]
}

// OpenClientCA reads the certificates of a file. The error names it.
func OpenClientCA(file string, opts ...Option) (*ClientCA, error) {
	c := &ClientCA{settings: newSettings(opts), file: file}
	return c, c.Reload()
}

// Reload reads the file again. On an error nothing changes.
func (c *ClientCA) Reload() error {
	list, err := readCerts(c.file)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, cert := range list {
		pool.AddCert(cert)
	}
	c.roots.Store(pool)
	return nil
}

// Ask makes a listener ask its clients for a certificate of this CA. None is demanded, and a bad one is refused when
// it is used (Addresses), not in the handshake: a client may show what it has, and log in by other means.
func (c *ClientCA) Ask(config *tls.Config) {
	config.ClientAuth, config.ClientCAs = tls.RequestClientCert, c.roots.Load()
}

// Addresses are those that the certificate of a connection's client stands for. ErrNoIdentity where there is no
// certificate or no address in it, ErrWrongCA where the chain does not hold.
func (c *ClientCA) Addresses(cs *tls.ConnectionState) ([]string, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return nil, fmt.Errorf("client: %w", ErrNoIdentity)
	}
	leaf := cs.PeerCertificates[0]
	if _, err := leaf.Verify(verifyOptions(c.roots.Load(), cs.PeerCertificates[1:], c.now(), x509.ExtKeyUsageClientAuth)); err != nil {
		return nil, faultf(ErrWrongCA, "certificate of client %s is not accepted by the CA in %s: %v", describe(leaf), c.file, err)
	}
	if len(leaf.EmailAddresses) == 0 {
		return nil, fmt.Errorf("certificate of client %s has no mail address: %w", describe(leaf), ErrNoIdentity)
	}
	return leaf.EmailAddresses, nil
}
