package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// DefaultCAValidity and DefaultValidity are the lives of a CA and of a server's certificate when the
// caller names none. backdate is how far before now a certificate begins, for clocks that differ.
const (
	DefaultCAValidity = 10 * 365 * 24 * time.Hour
	DefaultValidity   = 365 * 24 * time.Hour
	backdate          = 10 * time.Minute
)

// CA is a certificate authority with its key.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

// CAOptions describes a new CA.
type CAOptions struct {
	Name     string           // common name; "Shoal internal CA" if empty
	Validity time.Duration    // DefaultCAValidity if zero
	Now      func() time.Time // clock; time.Now if nil
}

// Request describes a certificate.
type Request struct {
	// Role and Name go into the URI name shoal://role/name. A request without both makes a plain server
	// certificate for Hosts (for the address that clients see); no server of ours takes it as a peer.
	Role, Name string
	// Hosts are the DNS names and IP addresses at which foreign software may reach the server.
	Hosts []string
	// Validity is the life from now; DefaultValidity if zero, and never longer than the CA's.
	Validity time.Duration
}

// KeyPair is an issued certificate (with no chain: the CA signs directly) and its key, as PEM.
type KeyPair struct {
	Cert []byte
	Key  []byte // nil when the certificate was issued for a public key
}

// NewCA makes a CA with a new key. Nothing is written: see Save.
func NewCA(o CAOptions) (*CA, error) {
	if o.Name == "" {
		o.Name = "Shoal internal CA"
	}
	if o.Validity == 0 {
		o.Validity = DefaultCAValidity
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("new CA: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("new CA: %w", err)
	}
	now := o.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: o.Name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(o.Validity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("new CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("new CA: %w", err)
	}
	return &CA{cert: cert, key: key, now: o.Now}, nil
}

// LoadCA reads a CA from its two files.
func LoadCA(certFile, keyFile string, opts ...Option) (*CA, error) {
	s := newSettings(opts)
	certs, err := readCerts(certFile)
	if err != nil {
		return nil, err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	if !certs[0].IsCA {
		return nil, fmt.Errorf("certificate file %s is not of a CA", certFile)
	}
	if err := matches(certs[0], key, certFile, keyFile); err != nil {
		return nil, err
	}
	if err := validNow(certs[0], certFile, s.now()); err != nil {
		return nil, err
	}
	return &CA{cert: certs[0], key: key, now: s.now}, nil
}

// Save writes certificate (mode 0644) and key (mode 0600), replacing both files whole.
func (ca *CA) Save(certFile, keyFile string) error {
	key, err := encodeKey(ca.key)
	if err != nil {
		return err
	}
	return KeyPair{Cert: ca.CertPEM(), Key: key}.Save(certFile, keyFile)
}

// CertPEM is the CA's certificate: what every server needs as its ca_file.
func (ca *CA) CertPEM() []byte { return encodeCert(ca.cert.Raw) }

// NotAfter is when the CA expires.
func (ca *CA) NotAfter() time.Time { return ca.cert.NotAfter }

// Issue makes a key and a certificate for it.
func (ca *CA) Issue(r Request) (KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("issue certificate: %w", err)
	}
	cert, err := ca.IssueFor(key.Public(), r)
	if err != nil {
		return KeyPair{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return KeyPair{}, err
	}
	return KeyPair{Cert: cert, Key: keyPEM}, nil
}

// IssueFor makes a certificate (PEM) for a key that stays with its owner.
func (ca *CA) IssueFor(public crypto.PublicKey, r Request) ([]byte, error) {
	template, err := ca.template(r)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return encodeCert(der), nil
}

// template is the certificate that a request asks for, without its key.
func (ca *CA) template(r Request) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	if r.Validity == 0 {
		r.Validity = DefaultValidity
	}
	now := ca.now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(r.Validity),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
	}
	if t.NotAfter.After(ca.cert.NotAfter) {
		t.NotAfter = ca.cert.NotAfter
	}
	switch {
	case r.Role == "" && r.Name == "":
		if len(r.Hosts) == 0 {
			return nil, errors.New("a certificate needs a role and a name, or hosts")
		}
		t.Subject = pkix.Name{CommonName: r.Hosts[0]}
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	default:
		if err := checkIdentity(r.Role, r.Name); err != nil {
			return nil, err
		}
		t.Subject = pkix.Name{CommonName: r.Name, OrganizationalUnit: []string{r.Role}}
		t.URIs = append(t.URIs, identityURI(r.Role, r.Name))
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if r.Role != RoleOperator {
			t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		}
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		if h == "" || strings.ContainsAny(h, " /:\x00") {
			return nil, fmt.Errorf("%q is neither a host name nor an IP address", h)
		}
		t.DNSNames = append(t.DNSNames, h)
	}
	return t, nil
}

// newSerial is random: 127 bits, positive (RFC 5280 §4.1.2.2: at most 20 octets).
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
