package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"shoal/daemons/internal/clock"
)

func put(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var settings = Settings{Name: "corp", Issuer: "https://id.example.net/", Audience: "shoal", AddressClaim: "email", Timeout: 5 * time.Second,
	JWKSLife: time.Hour, IntrospectionLife: time.Minute}

// Tokens are taken that the provider's key signed, for us, now; nothing else is.
func TestProviderKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	s := settings
	s.JWKSFile = put(t, "jwks.json", set)
	clk := clock.NewFake(time.Unix(1e9, 0))
	p, err := NewProvider(s, clk)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(alg jose.SignatureAlgorithm, with any, claims map[string]any) string {
		t.Helper()
		all := map[string]any{"iss": s.Issuer, "aud": "shoal", "exp": clk.Now().Unix() + 60, "email": "alice@example.test"}
		for k, v := range claims {
			all[k] = v
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: with, KeyID: "k1"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := jwt.Signed(signer).Claims(all).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if id, err := p.Check(t.Context(), sign(jose.ES256, key, nil)); err != nil || id.Address != "alice@example.test" || id.Provider != "corp" {
		t.Fatalf("%+v, %v", id, err)
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := clk.Now().Unix()
	for what, raw := range map[string]string{
		"another key":    sign(jose.ES256, foreign, nil),
		"shared secret":  sign(jose.HS256, []byte("0123456789abcdef0123456789abcdef"), nil),
		"other audience": sign(jose.ES256, key, map[string]any{"aud": "others"}),
		"other issuer":   sign(jose.ES256, key, map[string]any{"iss": "https://evil.example/"}),
		"expired":        sign(jose.ES256, key, map[string]any{"exp": now - 60}),
		"no end":         sign(jose.ES256, key, map[string]any{"exp": nil}),
		"not yet":        sign(jose.ES256, key, map[string]any{"nbf": now + 600}),
		"no address":     sign(jose.ES256, key, map[string]any{"email": nil}),
		"not verified":   sign(jose.ES256, key, map[string]any{"email_verified": false}),
		"none":           "eyJhbGciOiJub25lIn0.e30.",
	} {
		if id, err := p.Check(t.Context(), raw); err == nil {
			t.Errorf("%s: taken as %+v", what, id)
		}
	}
}

// Introspection: what the provider calls active, for us and until its end, and it is asked once a minute.
func TestIntrospection(t *testing.T) {
	asked := 0
	answer := map[string]any{}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if user, password, ok := r.BasicAuth(); !ok || user != "shoal" || password != "s3cret" || r.FormValue("token") == "" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer srv.Close()
	s := settings
	s.CAFile = put(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	s.SecretFile, s.ClientID, s.IntrospectionURL = put(t, "secret", []byte("s3cret\n")), "shoal", srv.URL
	clk := clock.NewFake(time.Unix(1e9, 0))
	p, err := NewProvider(s, clk)
	if err != nil {
		t.Fatal(err)
	}
	answer["active"] = false
	if _, err := p.Check(t.Context(), "opaque-1"); !errors.Is(err, ErrInvalid) {
		t.Errorf("not active: %v", err)
	}
	answer = map[string]any{"active": true, "email": "alice@example.test", "aud": []string{"shoal"}, "exp": clk.Now().Unix() + 3600}
	for range 3 {
		if id, err := p.Check(t.Context(), "opaque-2"); err != nil || id.Address != "alice@example.test" {
			t.Fatalf("%+v, %v", id, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	answer["aud"] = "others"
	clk.Advance(time.Minute)
	if _, err := p.Check(t.Context(), "opaque-2"); !errors.Is(err, ErrInvalid) {
		t.Errorf("for others: %v", err)
	}
	srv.Close()
	if _, err := p.Check(t.Context(), "opaque-3"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("away: %v", err)
	}
}

func TestKeyFile(t *testing.T) {
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := LoadKey(path)
	if err != nil || again.ID != k.ID || !again.Private.Equal(k.Private) {
		t.Errorf("%v, %v", again, err)
	}
	if err := k.Save(path); err == nil {
		t.Error("a key file was overwritten")
	}
}

func FuzzPublicKey(f *testing.F) {
	k, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{k.Public(time.Time{}), k.Public(time.Unix(2e9, 0)), "2 x", "", "1 abcdefgh EdDSA AAAA 0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, known, err := ParsePublicKey(s)
		if !known || err != nil {
			return
		}
		if q, known, err := ParsePublicKey(p.String()); !known || err != nil || q.ID != p.ID || !q.NotAfter.Equal(p.NotAfter) {
			t.Errorf("%q: %+v, %+v, %v", s, p, q, err)
		}
	})
}
