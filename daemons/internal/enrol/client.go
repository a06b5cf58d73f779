package enrol

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/pki"
)

// askWithin bounds one request.
const askWithin = 30 * time.Second

// stateFile is in the folder of an enrolled server, beside
//
//	ca.crt             the CA's certificate
//	server.crt         the server's certificate
//	server.key         its key, mode 0600
//	directory.secret   the password of its directory entry, mode 0600
const stateFile = "enrolment.json"

// State is what an enrolled server keeps about its enrolment: no secret in it.
type State struct {
	Version   int      `json:"version"` // 1
	URL       string   `json:"url"`     // of the authority
	Name      string   `json:"name"`
	Role      string   `json:"role"`
	BindDN    string   `json:"bind_dn"`
	Suffix    string   `json:"suffix"`
	Directory []string `json:"directory"` // URIs
	// Owner, user:group in numbers, is to whom key and password belong; empty: whoever enrolled.
	Owner string `json:"owner,omitempty"`
}

// Folder is where an enrolled server keeps its credentials.
type Folder string

func (f Folder) path(name string) string { return filepath.Join(string(f), name) }

// Files are the certificate, key and CA of a server.
func (f Folder) Files() pki.Files {
	return pki.Files{Cert: f.path("server.crt"), Key: f.path("server.key"), CA: f.path("ca.crt")}
}

// Secret is the file with the password of a server's directory entry.
func (f Folder) Secret() string { return f.path("directory.secret") }

// State reads what enrolling left. os.ErrNotExist when the folder is of no enrolled server.
func (f Folder) State() (*State, error) {
	file, err := os.Open(f.path(stateFile))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var s State
	if err := json.NewDecoder(io.LimitReader(file, maxBody)).Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w", f.path(stateFile), err)
	}
	if s.Version != 1 {
		return nil, fmt.Errorf("%s is of version %d, this program reads version 1: use a newer program", f.path(stateFile), s.Version)
	}
	return &s, nil
}

// Request is what a new server shows.
type Request struct {
	URL         string // of the authority: https://host:port
	Name, Role  string
	Token       string
	Fingerprint string // SHA-256 of the CA's certificate, in hex
	Owner       string // as State.Owner
}

// Enrol makes a key, shows the token, and writes certificate, key, CA, password and state into the folder. The key is
// written before the token is shown, and kept when it is not known what the authority did: the next Enrol shows the same
// token for the same key, and is answered again if the answer was lost.
func Enrol(ctx context.Context, f Folder, r Request) (*State, error) {
	fingerprint, err := cleanFingerprint(r.Fingerprint)
	if err != nil {
		return nil, err
	}
	if err := CheckClear(r.Token); err != nil {
		return nil, err
	}
	base, err := checkURL(r.URL)
	if err != nil {
		return nil, err
	}
	roots, ca, err := fetchCA(ctx, base, fingerprint)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(string(f), 0o750); err != nil {
		return nil, fmt.Errorf("folder of the credentials: %w", err)
	}
	fresh := f.Files().Key + ".new"
	csr, err := keptKey(fresh, r.Name)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: askWithin, Transport: &http.Transport{TLSClientConfig: authorityTLS(roots, nil)}}
	defer client.CloseIdleConnections()
	out, err := post(ctx, client, base+"/v1/enrol", request{Name: r.Name, Role: r.Role, Token: r.Token, CSR: string(csr)})
	if err != nil {
		if !errors.Is(err, ErrUnreachable) {
			_ = os.Remove(fresh) // it belongs to nothing
		}
		return nil, err
	}
	if out.Password == "" || out.BindDN == "" {
		return nil, errors.New("the authority's answer has no credentials for the directory")
	}
	s := &State{Version: 1, URL: base, Name: r.Name, Role: r.Role, BindDN: out.BindDN, Suffix: out.Suffix, Directory: out.Directory, Owner: r.Owner}
	return s, f.save(s, ca, fresh, out)
}

// Renew gets a new certificate for a new key when less than a third of the present one's life is left, or anyway if
// force is set. It reports whether it did; running daemons notice the files by themselves.
func Renew(ctx context.Context, f Folder, now time.Time, force bool) (bool, *State, error) {
	s, err := f.State()
	if err != nil {
		return false, nil, fmt.Errorf("this server is not enrolled: %w", err)
	}
	files := f.Files()
	leaf, err := readLeaf(files.Cert)
	if err != nil {
		return false, s, err
	}
	if !force && leaf.NotAfter.Sub(now) > leaf.NotAfter.Sub(leaf.NotBefore)/3 {
		return false, s, nil
	}
	creds, err := pki.Load(files)
	if err != nil {
		return false, s, err
	}
	ca, err := os.ReadFile(files.CA)
	if err != nil {
		return false, s, err
	}
	key, csr, err := newKey(s.Name)
	if err != nil {
		return false, s, err
	}
	client := &http.Client{Timeout: askWithin, Transport: &http.Transport{TLSClientConfig: creds.ClientTLS(pki.RoleEnrol)}}
	defer client.CloseIdleConnections()
	out, err := post(ctx, client, s.URL+"/v1/renew", request{CSR: string(csr)})
	if err != nil {
		return false, s, err
	}
	fresh := files.Key + ".new"
	if err := pki.WriteFile(fresh, key, 0o600); err != nil {
		return false, s, err
	}
	return true, s, f.save(s, ca, fresh, out)
}

// save writes what was got. Key before certificate: a daemon that looks between the two keeps its old pair.
func (f Folder) save(s *State, ca []byte, fresh string, out *answer) error {
	files := f.Files()
	if err := pki.WriteFile(files.CA, ca, 0o644); err != nil {
		return err
	}
	if out.Password != "" {
		if err := pki.WriteFile(f.Secret()+".new", []byte(out.Password+"\n"), 0o600); err != nil {
			return err
		}
		if err := s.give(f.Secret()+".new", f.Secret()); err != nil {
			return err
		}
	}
	if err := s.give(fresh, files.Key); err != nil {
		return err
	}
	if err := pki.WriteFile(files.Cert, []byte(out.Certificate), 0o644); err != nil {
		return err
	}
	creds, err := pki.Load(files)
	if err != nil {
		return fmt.Errorf("what the authority gave is not good: %w", err)
	}
	if creds.Role() != s.Role || creds.Name() != s.Name {
		return fmt.Errorf("what the authority gave is a certificate of %s/%s, not of %s/%s", creds.Role(), creds.Name(), s.Role, s.Name)
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return pki.WriteFile(f.path(stateFile), append(text, '\n'), 0o644)
}

// give puts a file in its place, with the owner of the old one: a daemon that finds the new file may read it.
func (s *State) give(from, to string) error {
	uid, gid := -1, -1 // as it is
	var old unix.Stat_t
	if err := unix.Stat(to, &old); err == nil {
		uid, gid = int(old.Uid), int(old.Gid)
	} else if s.Owner != "" {
		if _, err := fmt.Sscanf(s.Owner, "%d:%d", &uid, &gid); err != nil {
			return fmt.Errorf("owner %q is not uid:gid in numbers", s.Owner)
		}
	}
	if err := os.Lchown(from, uid, gid); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	return nil
}

func checkURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", fmt.Errorf("%q is not the address of an authority: it looks like https://vault1.example.net:7443", s)
	}
	return "https://" + u.Host, nil
}

// fetchCA gets the CA's certificate from a peer that is not known yet; it is the right one if its fingerprint is.
func fetchCA(ctx context.Context, base, fingerprint string) (*x509.CertPool, []byte, error) {
	// Nothing secret is sent on this connection, and what comes is compared with the fingerprint.
	client := &http.Client{Timeout: askWithin, Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/ca", nil)
	if err != nil {
		return nil, nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, unreachable(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return nil, nil, unreachable(err)
	}
	block, _ := pem.Decode(b)
	if res.StatusCode != http.StatusOK || block == nil || block.Type != "CERTIFICATE" {
		return nil, nil, fmt.Errorf("%s is no authority for enrolment: it answers %s and no certificate", base, res.Status)
	}
	if got := Fingerprint(block.Bytes); got != fingerprint {
		return nil, nil, fmt.Errorf("the CA at %s is not the one of the fingerprint: it has %s, wanted %s; the token was not sent", base, got, fingerprint)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}), nil
}

// authorityTLS demands a certificate of role enrol of these roots. Its host name is not compared: the role is who it is.
func authorityTLS(roots *x509.CertPool, certs []tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: certs,
		InsecureSkipVerify: true, // verification by host name is replaced, not left out
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("the authority shows no certificate")
			}
			o := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
			if _, err := cs.PeerCertificates[0].Verify(o); err != nil {
				return fmt.Errorf("the authority's certificate: %w", err)
			}
			role, name, err := pki.PeerIdentity(cs)
			if err != nil {
				return err
			}
			if role != pki.RoleEnrol {
				return fmt.Errorf("%s is a server of role %s, not the authority for enrolment; the token was not sent", name, role)
			}
			return nil
		},
	}
}

// unreachable names what failed without the request, which url.Error repeats.
func unreachable(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, failed.URL, failed.Err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// ErrUnreachable is an authority that does not answer, or not now: worth another try.
var ErrUnreachable = errors.New("the authority for enrolment cannot be reached")

func post(ctx context.Context, client *http.Client, address string, in request) (*answer, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return nil, unreachable(err)
	}
	defer res.Body.Close()
	d := json.NewDecoder(io.LimitReader(res.Body, maxBody))
	if res.StatusCode != http.StatusOK {
		var told struct{ Error string }
		if err := d.Decode(&told); err != nil || told.Error == "" {
			told.Error = "it answers " + res.Status
		}
		if res.StatusCode >= 500 {
			return nil, fmt.Errorf("%w: %s", ErrUnreachable, told.Error)
		}
		return nil, fmt.Errorf("the authority refuses: %s", told.Error)
	}
	var out answer
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("%w: its answer cannot be read: %w", ErrUnreachable, err)
	}
	return &out, nil
}

// keptKey gives a certificate request for the key that an attempt before this one left in a file, or for a new one that it writes there.
func keptKey(file, name string) (csr []byte, err error) {
	if text, err := os.ReadFile(file); err == nil {
		if block, _ := pem.Decode(text); block != nil && block.Type == "PRIVATE KEY" {
			if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if k, ok := k.(*ecdsa.PrivateKey); ok {
					return requestFor(k, name)
				}
			}
		}
	}
	key, csr, err := newKey(name)
	if err != nil {
		return nil, err
	}
	return csr, pki.WriteFile(file, key, 0o600)
}

// newKey makes a key and a certificate request for it, both PEM.
func newKey(name string) (key, csr []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("new key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, fmt.Errorf("new key: %w", err)
	}
	csr, err = requestFor(k, name)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), csr, err
}

func requestFor(k *ecdsa.PrivateKey, name string) ([]byte, error) {
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, k)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), nil
}

func readLeaf(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return x509.ParseCertificate(block.Bytes)
}

// Password reads the password of the server's directory entry.
func (f Folder) Password() (string, error) {
	b, err := conf.ReadSecret(f.Secret())
	return string(b), err
}
