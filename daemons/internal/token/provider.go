package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
)

// Settings are the attributes of a block provider within login: an identity provider whose tokens open accounts here. The label is
// its name in logs.
type Settings struct {
	Name string `hcl:"name,label"`
	// Issuer is the claim iss of its tokens, Audience what must be among their aud.
	Issuer   string `hcl:"issuer" example:"https://id.example.net/"`
	Audience string `hcl:"audience" example:"shoal"`
	// AddressClaim is the claim that holds the address of the account.
	AddressClaim string `hcl:"address_claim,optional" default:"email"`
	// Scope is what must be among the token's scopes (claim scope); empty: nothing.
	Scope string `hcl:"scope,optional" default:""`
	// Services are what its tokens may be used for; empty: everything.
	Services []string `hcl:"services,optional"`
	// Algorithms are those that are taken of its keys.
	Algorithms []string `hcl:"algorithms,optional" example:"[\"RS256\", \"ES256\", \"EdDSA\"]"`
	// JWKSFile or JWKSURL is where its keys are (RFC 7517). The file is read again when it has changed; the URL is asked again after
	// JWKSLife, and when a token names a key that is not there.
	JWKSFile string        `hcl:"jwks_file,optional" conf:"path"`
	JWKSURL  string        `hcl:"jwks_url,optional" example:"https://id.example.net/jwks.json"`
	JWKSLife time.Duration `hcl:"jwks_life,optional" default:"1h" min:"1m" max:"24h"`
	// IntrospectionURL is asked about tokens that are no JWTs (RFC 7662), as ClientID with the secret in SecretFile. An answer is
	// remembered for IntrospectionLife.
	IntrospectionURL  string        `hcl:"introspection_url,optional" example:"https://id.example.net/introspect"`
	ClientID          string        `hcl:"client_id,optional"`
	SecretFile        string        `hcl:"secret_file,optional" conf:"path"`
	IntrospectionLife time.Duration `hcl:"introspection_life,optional" default:"1m" min:"0s" max:"10m"`
	// CAFile verifies the provider's certificate; empty: the system's CAs.
	CAFile string `hcl:"ca_file,optional" conf:"path"`
	// Timeout bounds one question to it.
	Timeout time.Duration `hcl:"timeout,optional" default:"5s" min:"100ms" max:"1m"`
}

// algorithms that may be configured. Those of shared secrets are not among them.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// Bounds of what a provider may answer.
const (
	maxKeys       = 256 << 10
	maxAnswer     = 64 << 10
	maxRemembered = 10000
	// refetch is the least time between two fetches of the keys because of an unknown key id.
	refetch = 10 * time.Second
)

// Identity is what a provider's token says.
type Identity struct {
	Provider string
	Address  string // of the account
	Expires  time.Time
	Services []string // empty: everything
}

// Provider checks tokens of one identity provider.
type Provider struct {
	set        Settings
	algorithms []jose.SignatureAlgorithm
	client     *http.Client
	clock      clock.Clock

	mu      sync.Mutex
	keys    *jose.JSONWebKeySet
	at      time.Duration // when keys were fetched
	stamp   time.Time     // of the file
	asked   map[string]introspected
	loading sync.Mutex
}

type introspected struct {
	identity *Identity
	until    time.Duration
}

// NewProvider checks the settings. It asks nobody yet.
func NewProvider(s Settings, c clock.Clock) (*Provider, error) {
	fail := func(format string, args ...any) (*Provider, error) {
		return nil, fmt.Errorf("provider %q: %w", s.Name, fmt.Errorf(format, args...))
	}
	if c == nil {
		c = clock.System()
	}
	p := &Provider{set: s, clock: c, asked: map[string]introspected{}}
	names := s.Algorithms
	if len(names) == 0 {
		names = []string{"RS256", "ES256", "EdDSA"}
	}
	for _, n := range names {
		a := jose.SignatureAlgorithm(n)
		if !slices.Contains(algorithms, a) {
			return fail("algorithm %q is not taken: one of %v", n, algorithms)
		}
		p.algorithms = append(p.algorithms, a)
	}
	switch {
	case s.Issuer == "" || s.Audience == "" || s.AddressClaim == "":
		return fail("issuer, audience and address_claim are needed")
	case strings.HasPrefix(s.Issuer, issuer):
		return fail("issuer %q is ours", s.Issuer)
	case s.JWKSFile != "" && s.JWKSURL != "":
		return fail("jwks_file and jwks_url: write one of them")
	case s.JWKSFile == "" && s.JWKSURL == "" && s.IntrospectionURL == "":
		return fail("write jwks_file, jwks_url or introspection_url: how are its tokens to be checked?")
	case s.IntrospectionURL != "" && (s.ClientID == "" || s.SecretFile == ""):
		return fail("introspection_url needs client_id and secret_file")
	}
	for _, u := range []string{s.JWKSURL, s.IntrospectionURL} {
		if u == "" {
			continue
		}
		if at, err := url.Parse(u); err != nil || at.Scheme != "https" || at.Host == "" {
			return fail("%q is no https URL", u)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		data, err := readFile(s.CAFile)
		if err != nil {
			return fail("ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return fail("ca_file %s: holds no certificate in PEM", s.CAFile)
		}
	}
	p.client = &http.Client{
		Timeout:   s.Timeout,
		Transport: &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, MaxIdleConns: 4, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the provider redirects: write the address where it answers")
		},
	}
	return p, nil
}

// Name is its name in logs.
func (p *Provider) Name() string { return p.set.Name }

// Issuer reads the issuer of a JWT, unverified; ok is false for what is no signed JWT.
func Issuer(raw string) (string, bool) {
	if len(raw) > MaxLength {
		return "", false
	}
	t, err := jwt.ParseSigned(raw, algorithms)
	if err != nil {
		return "", false
	}
	var c jwt.Claims
	if err := t.UnsafeClaimsWithoutVerification(&c); err != nil {
		return "", false
	}
	return c.Issuer, true
}

// Takes says whether a token is to be checked by this provider: by its issuer for a JWT, or because it can be asked about.
func (p *Provider) Takes(iss string, isJWT bool) bool {
	if isJWT {
		return iss == p.set.Issuer && (p.set.JWKSFile != "" || p.set.JWKSURL != "" || p.set.IntrospectionURL != "")
	}
	return p.set.IntrospectionURL != ""
}

// Check checks a token. ErrInvalid, ErrUnavailable.
func (p *Provider) Check(ctx context.Context, raw string) (*Identity, error) {
	if len(raw) > MaxLength {
		return nil, fmt.Errorf("%w: it is too long", ErrInvalid)
	}
	if _, isJWT := Issuer(raw); isJWT && (p.set.JWKSFile != "" || p.set.JWKSURL != "") {
		return p.verify(ctx, raw)
	}
	return p.introspect(ctx, raw)
}

// verify checks a JWT by the provider's keys.
func (p *Provider) verify(ctx context.Context, raw string) (*Identity, error) {
	t, err := jwt.ParseSigned(raw, p.algorithms)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	kid := t.Headers[0].KeyID
	keys, err := p.keysFor(ctx, kid)
	if err != nil {
		return nil, err
	}
	var claims jwt.Claims
	all := map[string]any{}
	err = errors.New("no key of the provider fits")
	for _, k := range keys {
		if k.Use != "" && k.Use != "sig" || k.Algorithm != "" && k.Algorithm != t.Headers[0].Algorithm {
			continue
		}
		if err = t.Claims(k.Key, &claims, &all); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	now := p.clock.Now()
	if err := claims.ValidateWithLeeway(jwt.Expected{Issuer: p.set.Issuer, AnyAudience: jwt.Audience{p.set.Audience}, Time: now}, Leeway); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if claims.Expiry == nil {
		return nil, fmt.Errorf("%w: it does not say when it expires", ErrInvalid)
	}
	return p.identity(all, claims.Expiry.Time())
}

// identity takes the account's address from the claims.
func (p *Provider) identity(claims map[string]any, expires time.Time) (*Identity, error) {
	address, _ := claims[p.set.AddressClaim].(string)
	if address == "" {
		return nil, fmt.Errorf("%w: it has no claim %s", ErrInvalid, p.set.AddressClaim)
	}
	if verified, ok := claims["email_verified"].(bool); ok && !verified && p.set.AddressClaim == "email" {
		return nil, fmt.Errorf("%w: the provider has not verified the address", ErrInvalid)
	}
	if p.set.Scope != "" {
		scope, _ := claims["scope"].(string)
		if !slices.Contains(strings.Fields(scope), p.set.Scope) {
			return nil, fmt.Errorf("%w: it has not the scope %s", ErrInvalid, p.set.Scope)
		}
	}
	return &Identity{Provider: p.set.Name, Address: address, Expires: expires, Services: p.set.Services}, nil
}

// keysFor gives the keys that may have signed: those with the id, or all for a token that names none.
func (p *Provider) keysFor(ctx context.Context, kid string) ([]jose.JSONWebKey, error) {
	p.loading.Lock()
	defer p.loading.Unlock()
	pick := func() []jose.JSONWebKey {
		if p.keys == nil {
			return nil
		}
		if kid == "" {
			return p.keys.Keys
		}
		return p.keys.Key(kid)
	}
	now := p.clock.Boot()
	fresh := p.keys != nil && now-p.at < p.set.JWKSLife
	if p.set.JWKSFile != "" {
		info, err := os.Stat(p.set.JWKSFile)
		fresh = p.keys != nil && (err != nil || info.ModTime().Equal(p.stamp))
		if err == nil {
			p.stamp = info.ModTime()
		}
	} else if fresh && len(pick()) == 0 && now-p.at >= refetch {
		fresh = false // it may have a new key
	}
	if !fresh {
		keys, err := p.fetch(ctx)
		switch {
		case err == nil:
			p.keys, p.at = keys, now
		case p.keys == nil:
			return nil, fmt.Errorf("%w: keys of provider %q: %w", ErrUnavailable, p.set.Name, err)
		}
	}
	return pick(), nil
}

func (p *Provider) fetch(ctx context.Context) (*jose.JSONWebKeySet, error) {
	var data []byte
	var err error
	if p.set.JWKSFile != "" {
		data, err = readFile(p.set.JWKSFile)
	} else {
		var r *http.Request
		if r, err = http.NewRequestWithContext(ctx, http.MethodGet, p.set.JWKSURL, nil); err == nil {
			data, err = p.do(r, maxKeys)
		}
	}
	if err != nil {
		return nil, err
	}
	return parseKeys(data)
}

// parseKeys reads a JWK set. Keys that are not public, or that are not understood, are passed over.
func parseKeys(data []byte) (*jose.JSONWebKeySet, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("JWK set: %w", err)
	}
	set := &jose.JSONWebKeySet{}
	for _, one := range raw.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(one); err == nil && k.Valid() && k.IsPublic() {
			set.Keys = append(set.Keys, k)
		}
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("JWK set: holds no public key")
	}
	return set, nil
}

func (p *Provider) do(r *http.Request, most int64) ([]byte, error) {
	r.Header.Set("Accept", "application/json")
	res, err := p.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", r.URL.Host, res.Status)
	case int64(len(data)) > most:
		return nil, fmt.Errorf("the answer of %s is longer than %d bytes", r.URL.Host, most)
	}
	return data, nil
}

// introspect asks the provider about a token (RFC 7662 §2).
func (p *Provider) introspect(ctx context.Context, raw string) (*Identity, error) {
	now := p.clock.Boot()
	p.mu.Lock()
	known, ok := p.asked[raw]
	p.mu.Unlock()
	if ok && now < known.until && p.clock.Now().Before(known.identity.Expires) {
		return known.identity, nil
	}
	secret, err := conf.ReadSecret(p.set.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("%w: secret_file of provider %q: %w", ErrUnavailable, p.set.Name, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.set.IntrospectionURL, strings.NewReader(url.Values{"token": {raw}, "token_type_hint": {"access_token"}}.Encode()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(p.set.ClientID), url.QueryEscape(string(secret))) // RFC 6749 §2.3.1
	data, err := p.do(r, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("%w: provider %q: %w", ErrUnavailable, p.set.Name, err)
	}
	id, err := p.introspection(data)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) >= maxRemembered {
		clear(p.asked)
	}
	p.asked[raw] = introspected{id, now + p.set.IntrospectionLife}
	return id, nil
}

// introspection reads the answer (RFC 7662 §2.2).
func (p *Provider) introspection(data []byte) (*Identity, error) {
	var c struct {
		Active bool             `json:"active"`
		Expiry *jwt.NumericDate `json:"exp"`
		Before *jwt.NumericDate `json:"nbf"`
		Issuer string           `json:"iss"`
		Aud    jwt.Audience     `json:"aud"`
	}
	all := map[string]any{}
	if err := errors.Join(json.Unmarshal(data, &c), json.Unmarshal(data, &all)); err != nil {
		return nil, fmt.Errorf("%w: answer of provider %q: %w", ErrUnavailable, p.set.Name, err)
	}
	now := p.clock.Now()
	expires := now.Add(MaxLife)
	if c.Expiry != nil {
		expires = c.Expiry.Time()
	}
	switch {
	case !c.Active:
		return nil, fmt.Errorf("%w: the provider says that it is not active", ErrInvalid)
	case !now.Before(expires.Add(Leeway)), c.Before != nil && now.Before(c.Before.Time().Add(-Leeway)):
		return nil, fmt.Errorf("%w: it has expired, or is not valid yet", ErrInvalid)
	case c.Issuer != "" && c.Issuer != p.set.Issuer:
		return nil, fmt.Errorf("%w: its issuer is another one", ErrInvalid)
	case len(c.Aud) > 0 && !c.Aud.Contains(p.set.Audience):
		return nil, fmt.Errorf("%w: it is not for us", ErrInvalid)
	}
	return p.identity(all, expires)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	if err == nil && len(data) > maxKeys {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxKeys)
	}
	return data, err
}
