// Package shoal holds the provider's clients: of the agents' API (HTTPS, JSON), and of the directory (LDAP). They use
// what is documented of them, and nothing of the daemons' code.
package shoal

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Operator is the certificate by which the servers know who asks, and the CA by which he knows them.
type Operator struct{ CertFile, KeyFile, CAFile string }

// TLS is the configuration of a connection to a server of one of these roles. The host name is not compared: the URI in the
// certificate, shoal://<role>/<name>, says who it is.
func (o Operator) TLS(roles ...string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("the operator's certificate: %w", err)
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", o.CAFile)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		InsecureSkipVerify: true, // verification by host name is replaced, not left out
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("the server shows no certificate")
			}
			options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
			for _, c := range cs.PeerCertificates[1:] {
				options.Intermediates.AddCert(c)
			}
			leaf := cs.PeerCertificates[0]
			if _, err := leaf.Verify(options); err != nil {
				return fmt.Errorf("the server's certificate: %w", err)
			}
			for _, u := range leaf.URIs {
				if u.Scheme == "shoal" && slices.Contains(roles, u.Host) {
					return nil
				}
			}
			return fmt.Errorf("the server's certificate is of %v, wanted role %s", leaf.URIs, strings.Join(roles, " or "))
		},
	}, nil
}
