package enrol

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// answered remembers the last token that each server spent, and for which key: when the answer was lost on its way, the server asks again
// with both and is answered again. Nobody else can: the key never left the server. It is good for as long as the token would have been.
//
// It is written to a file, if there is one, before the token is taken out of the directory: {"version": 1, "servers": {name: ...}}, with
// hashes only. Servers are those of the directory, so their number bounds it.
type answered struct {
	path string // "": it is forgotten with the process
	now  func() time.Time

	mu   sync.Mutex
	read bool
	file answeredFile
}

type answeredFile struct {
	Version int                       `json:"version"` // 1
	Servers map[string]answeredServer `json:"servers"`
}

type answeredServer struct {
	Token Token  `json:"token"` // its hash, bounds and hosts
	Key   string `json:"key"`   // SHA-256 of the public key (SubjectPublicKeyInfo), in hex
}

// mostAnswered bounds the file, in bytes: about 100,000 servers.
const mostAnswered = 32 << 20

func keyHash(public any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("csr: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// spend has it written down who gets the answer, and spends the token: one at a time, for of two with the same token the one is to be
// remembered that got in. An error of the file spends nothing.
func (a *answered) spend(name string, t Token, key string, do func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(); err != nil {
		return err
	}
	for n, s := range a.file.Servers {
		if !a.now().Before(s.Token.Expires) {
			delete(a.file.Servers, n)
		}
	}
	before, had := a.file.Servers[name]
	a.file.Servers[name] = answeredServer{t, key}
	err := a.save()
	if err == nil {
		err = do()
	}
	if errors.Is(err, dirclient.ErrNoSuchToken) || errors.Is(err, dirclient.ErrNoSuchEntry) { // somebody else's, for certain
		if delete(a.file.Servers, name); had {
			a.file.Servers[name] = before
		}
		err = errors.Join(err, a.save())
	}
	return err
}

func (a *answered) save() error {
	if a.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(a.file, "", "  ")
	if err != nil {
		return err
	}
	return pki.WriteFile(a.path, append(text, '\n'), 0o600)
}

// again gives the token if it is the last one that the server spent, for the same key and role, and would still be good.
func (a *answered) again(name, clear, role, key string) (Token, bool, error) {
	if CheckClear(clear) != nil {
		return Token{}, false, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(); err != nil {
		return Token{}, false, err
	}
	s, ok := a.file.Servers[name]
	ok = ok && s.Token.Hash == hashOf(clear) && s.Key == key && s.Token.Role == role && a.now().Before(s.Token.Expires)
	return s.Token, ok, nil
}

// load reads the file once. What it does not know is not thrown away: it is an error.
func (a *answered) load() error {
	if a.read {
		return nil
	}
	f := answeredFile{Version: 1, Servers: map[string]answeredServer{}}
	if a.path != "" {
		b, err := readBounded(a.path, mostAnswered)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return err
		default:
			d := json.NewDecoder(bytes.NewReader(b))
			d.DisallowUnknownFields()
			if err := d.Decode(&f); err != nil || f.Version != 1 || f.Servers == nil {
				return fmt.Errorf("%s is no list of answered enrolments of version 1 (%w): remove it, and make new tokens for servers whose answer was lost", a.path, errors.Join(err, errVersion(f.Version)))
			}
		}
	}
	a.file, a.read = f, true
	return nil
}

func errVersion(v int) error { return fmt.Errorf("its version is %d", v) }

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return b, err
}
