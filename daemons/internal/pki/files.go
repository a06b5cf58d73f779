package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// maxPEM bounds a certificate or key file, in bytes.
const maxPEM = 1 << 20

// Save writes certificate (mode 0644) and key (mode 0600, skipped when nil). The key is written first,
// so that a crash between the two is seen as a mismatch and not as a certificate without its key.
func (k KeyPair) Save(certFile, keyFile string) error {
	if k.Key != nil {
		if err := WriteFile(keyFile, k.Key, 0o600); err != nil {
			return err
		}
	}
	return WriteFile(certFile, k.Cert, 0o644)
}

// WriteFile replaces a file whole: a temporary file in the same folder, fsync, rename, fsync of the
// folder. Other processes see the old content or the new, also after a crash.
func WriteFile(name string, content []byte, mode fs.FileMode) error {
	dir := filepath.Dir(name)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// readPEM reads a file of certificates or a key; what is "certificate", "key" or "CA".
func readPEM(name, what string) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(name)
	switch {
	case name == "":
		return nil, nil, fmt.Errorf("no %s file is named in the configuration", what)
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, faultf(fs.ErrNotExist, "%s file %s does not exist: have it issued and put it there", what, name)
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, faultf(fs.ErrPermission, "%s file %s may not be read by user id %d: change its owner or group", what, name, os.Geteuid())
	case err != nil:
		return nil, nil, fmt.Errorf("%s file: %w", what, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("%s file: %w", what, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s file %s: %w", what, name, err)
	}
	if len(b) > maxPEM {
		return nil, nil, fmt.Errorf("%s file %s is larger than %d bytes: is it the right file?", what, name, maxPEM)
	}
	return b, st, nil
}

// readCerts reads the certificates of a file, at least one.
func readCerts(name string) ([]*x509.Certificate, error) {
	b, _, err := readPEM(name, "certificate")
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate file %s: certificate %d is damaged: %w", name, len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("certificate file %s holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", name)
	}
	return certs, nil
}

// readKey reads the key of a file, which must not be open to everybody.
func readKey(name string) (crypto.Signer, error) {
	b, st, err := readPEM(name, "key")
	if err != nil {
		return nil, err
	}
	if m := st.Mode().Perm(); m&0o007 != 0 {
		return nil, fmt.Errorf("key file %s is open to everybody (mode %04o): run chmod 600 %s and issue a new key", name, m, name)
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil, fmt.Errorf("key file %s holds no key in PEM form (-----BEGIN PRIVATE KEY-----)", name)
		}
		key, err := parseKey(block)
		if err != nil {
			return nil, fmt.Errorf("key file %s: %w", name, err)
		}
		if key != nil {
			return key, nil
		}
	}
}

// parseKey returns nil for a block that is not a key.
func parseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key has a passphrase, which no daemon can type: store it without")
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the key is damaged: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

// matches checks that key and certificate belong together.
func matches(cert *x509.Certificate, key crypto.Signer, certFile, keyFile string) error {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return faultf(ErrMismatch, "key file %s does not belong to certificate file %s: install the two that were issued together", keyFile, certFile)
	}
	return nil
}

// layout is how dates are written in messages.
const layout = "2006-01-02 15:04 MST"

// validNow checks the dates of a certificate.
func validNow(cert *x509.Certificate, file string, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return faultf(ErrExpired, "certificate file %s (%s) expired on %s, %s ago: have a new one issued and put it there",
			file, describe(cert), cert.NotAfter.UTC().Format(layout), age(now.Sub(cert.NotAfter)))
	case now.Before(cert.NotBefore):
		return faultf(ErrNotYetValid, "certificate file %s (%s) is valid from %s only: check this machine's clock, which says %s",
			file, describe(cert), cert.NotBefore.UTC().Format(layout), now.UTC().Format(layout))
	}
	return nil
}

// age is a duration for people: whole days, hours or minutes.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}

// describe names a certificate by its identity, or else by its subject.
func describe(cert *x509.Certificate) string {
	for _, u := range cert.URIs {
		if u.Scheme == "shoal" {
			return u.String()
		}
	}
	return cert.Subject.String()
}
