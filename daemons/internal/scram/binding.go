package scram

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
)

// Names of the channel bindings (RFC 9266 §2, RFC 5929 §4 and §3).
const (
	TLSExporter       = "tls-exporter"
	TLSServerEndPoint = "tls-server-end-point"
	TLSUnique         = "tls-unique"
)

// Binding is what binds an exchange to the TLS connection that carries it, by the names of the bindings. Without
// any, mechanisms with -PLUS are not on offer.
type Binding map[string][]byte

// ServerBinding gives the bindings of a connection at its server, whose certificate is certificate (DER; nil if it
// is not known). What a connection cannot give is left out: tls-exporter needs TLS 1.3, or 1.2 with the extended
// master secret (RFC 9266 §4.2), tls-unique TLS 1.2 with that.
func ServerBinding(cs *tls.ConnectionState, certificate []byte) Binding {
	b := Binding{}
	if cs == nil || !cs.HandshakeComplete {
		return b
	}
	if key, err := cs.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32); err == nil {
		b[TLSExporter] = key
		// Without the extended master secret, which the exporter demands, tls-unique can be made the same on two connections (RFC 7627 §1);
		// TLS 1.3 has none.
		if cs.Version == tls.VersionTLS12 && len(cs.TLSUnique) > 0 { //nolint:staticcheck // it is what older clients know
			b[TLSUnique] = cs.TLSUnique //nolint:staticcheck // the same
		}
	}
	if len(certificate) > 0 {
		if sum := EndPoint(certificate); sum != nil {
			b[TLSServerEndPoint] = sum
		}
	}
	return b
}

// ClientBinding gives the bindings of a connection at its client.
func ClientBinding(cs *tls.ConnectionState) Binding {
	var der []byte
	if cs != nil && len(cs.PeerCertificates) > 0 {
		der = cs.PeerCertificates[0].Raw
	}
	return ServerBinding(cs, der)
}

// EndPoint is the binding tls-server-end-point: the hash of a server's certificate (DER) by the hash function of its
// signature, SHA-256 in the place of MD5 and SHA-1; nil where the signature has none (RFC 5929 §4.1).
func EndPoint(der []byte) []byte {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	h := crypto.SHA256
	switch c.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h = crypto.SHA512
	case x509.PureEd25519, x509.UnknownSignatureAlgorithm:
		return nil
	}
	s := h.New()
	_, _ = s.Write(der) // never fails (hash.Hash)
	return s.Sum(nil)
}
