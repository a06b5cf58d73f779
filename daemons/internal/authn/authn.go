// Package authn decides whether a user name and a password open an account.
//
// The password is checked by an LDAP bind: the stored hash never leaves the directory, and the work of argon2id is
// done there. So that twenty thousand clients that reconnect need not all be hashed for, credentials that were
// verified are remembered for a while: as HMAC-SHA-256, under a key that this process made at random and never shows,
// over the account's id, its credential version and the password. Only successes are remembered. When the password
// is changed, the credential version moves and the old entry matches no more, as soon as the account's new entry is
// seen here (the life of the directory client's cache).
//
// What a guesser meets:
//
//   - An unknown user costs the same as a known one with a wrong password: one bind, to a name that is not there.
//     (The directory spends a hash on that too.) The error is the same, and whether an account is suspended is told
//     only to who knows its password.
//   - Failures are counted per client address (a /64 for IPv6) and per user name, in tables of bounded size, and
//     forgotten one by one as time passes. Beyond a few free ones each attempt waits; the wait doubles with each
//     failure, up to a bound. Attempts from one address are spaced by it; attempts on one user wait it but are never
//     shut out by others' failures alone, and an address from which that user logged in before does not wait for
//     them. What would wait too long, or too many at once, is refused with ErrThrottled.
//   - One bind per user is on its way at a time, and the same credentials from one address share one.
//
// Waiting happens on the goroutine of the attempt, never under a lock.
//
// Several servers: each tells the others of its failures (Peers, peers.go), so that a guesser who spreads over them gains little.
// docs/authentication.md has how much.
//
// Beside passwords there are app passwords (apppassword.go), tokens (bearer.go), client certificates (external.go), and whatever a mechanism proves
// (Prove), which is SCRAM (scram.go). A session that a login opened is ended when the login would not be granted any more (watch.go). Each login leaves a line in the log (audit.go), and
// from time to time a date in the directory (lastlogin.go).
//
// Left out on purpose: SASL (package sasl), second factors.
package authn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/token"
)

// Errors of Login, for errors.Is.
var (
	// ErrBadCredentials: unknown user or wrong password, and nobody is told which.
	ErrBadCredentials = errors.New("wrong user name or password")
	// ErrSuspended: the password is right, but the account or its domain is suspended or closed.
	ErrSuspended = errors.New("account is suspended")
	// ErrUnavailable: it cannot be said now; the client may try again later.
	ErrUnavailable = errors.New("login is not possible at the moment")
	// ErrThrottled: too many failures, or too many attempts at once. It is an ErrUnavailable too, for
	// callers that make no difference.
	ErrThrottled = fmt.Errorf("%w: too many attempts", ErrUnavailable)
)

// Bounds of what a client may send, in bytes. Longer ones are wrong credentials.
const (
	maxUser     = 400
	maxPassword = 1024
)

// Directory looks accounts up and checks passwords (*dirclient.Client does).
type Directory interface {
	Account(ctx context.Context, address string) (*dirclient.Account, error)
	Domain(ctx context.Context, name string) (*dirclient.Domain, error)
	Bind(ctx context.Context, dn, password string) error
	AppPassword(ctx context.Context, accountDN, id string) (*dirclient.AppPassword, error)
	AccountByID(ctx context.Context, id string) (*dirclient.Account, error)
	// TokenKeys gives the public keys of session tokens by the webmail server that has them (package token).
	TokenKeys(ctx context.Context) (map[string][]string, error)
	// Verifiers, ScramKey and ScramComplete are what SCRAM needs, Certificates what client certificates do.
	Verifiers(ctx context.Context, accountDN string) (*dirclient.Verifiers, error)
	ScramKey(ctx context.Context) (string, error)
	ScramComplete(ctx context.Context, domain string) (bool, error)
	Certificates(ctx context.Context, accountDN string) ([][]byte, error)
	// SetLastLogins writes when entries were last used.
	SetLastLogins(ctx context.Context, logins map[string]time.Time) (int, error)
}

// Settings are the attributes of the block login in a daemon's configuration, with their defaults.
type Settings struct {
	// DefaultDomain is appended to a user name without a domain; empty: such names are refused.
	DefaultDomain string `hcl:"default_domain,optional" default:""`
	// CacheLife is how long verified credentials are remembered, CacheEntries how many.
	CacheLife    time.Duration `hcl:"cache_life,optional" default:"5m" max:"1h"`
	CacheEntries int           `hcl:"cache_entries,optional" default:"100000" min:"1"`
	// FreeFailures cost no wait. Each one after them doubles the wait, from FailureDelay up to
	// MaxAddressDelay for the client's address and MaxUserDelay for the user name.
	FreeFailures    int           `hcl:"free_failures,optional" default:"5" max:"1000"`
	FailureDelay    time.Duration `hcl:"failure_delay,optional" default:"500ms" max:"1m"`
	MaxAddressDelay time.Duration `hcl:"max_address_delay,optional" default:"15s" max:"5m"`
	MaxUserDelay    time.Duration `hcl:"max_user_delay,optional" default:"4s" max:"1m"`
	// FailureLife is the time after which one failure is forgotten.
	FailureLife time.Duration `hcl:"failure_life,optional" default:"1m" min:"1s" max:"24h"`
	// Remembered bounds the addresses, and the users, whose failures are counted.
	Remembered int `hcl:"remembered,optional" default:"100000" min:"100"`
	// AttemptsPerAddress and AttemptsPerUser bound the attempts that wait or are being checked at once.
	AttemptsPerAddress int `hcl:"attempts_per_address,optional" default:"64" min:"1" max:"100000"`
	AttemptsPerUser    int `hcl:"attempts_per_user,optional" default:"8" min:"1" max:"1000"`
	// Trusted names hosts, such as webmail servers, through which many users come: their addresses are
	// not counted, only the user names.
	Trusted []string `hcl:"trusted,optional" conf:"network"`
	// Recheck is how often the accounts of running sessions are looked at although nobody told of a change.
	Recheck time.Duration `hcl:"recheck,optional" default:"5m" min:"1s" max:"24h"`
	// LastLogin is how old the last login in the directory must be before a newer one is written there; 0: never. What is to be written
	// waits for LastLoginDelay at most.
	LastLogin      time.Duration `hcl:"last_login,optional" default:"24h" min:"0s" max:"8760h"`
	LastLoginDelay time.Duration `hcl:"last_login_delay,optional" default:"5m" min:"10ms" max:"24h"`
	// Audit is how many events of logins are kept in memory for shoalctl logins; the log has all.
	Audit int `hcl:"audit,optional" default:"10000" min:"10" max:"10000000"`
	// Scram says when SCRAM is offered. auto: when all accounts that could come have verifiers, see ScramHosts.
	Scram string `hcl:"scram,optional" default:"auto" oneof:"auto on off"`
	// ScramSHA1 says whether the mechanisms with SHA-1 are offered beside those with SHA-256.
	ScramSHA1 bool `hcl:"scram_sha1,optional" default:"true"`
	// ScramHosts are the names of hosts that are for some domains only.
	ScramHosts []ScramHost `hcl:"scram_host,block"`
	// ClientCertificates says what makes a client's certificate an account's: an address in it, or that and its being in the account's entry.
	ClientCertificates string `hcl:"client_certificates,optional" default:"address" oneof:"address directory"`
	// SessionTokens says whether tokens of our own webmail servers open accounts.
	SessionTokens bool `hcl:"session_tokens,optional" default:"true"`
	// Providers are the identity providers whose tokens do.
	Providers []token.Settings `hcl:"provider,block"`
}

// DefaultSettings are those of a configuration that says nothing.
func DefaultSettings() Settings {
	var s Settings
	setDefaults(&s)
	return s
}

// Options of New. Directory is required.
type Options struct {
	Directory Directory
	Suffix    string       // of the directory: where the entry of an unknown user would lie
	Settings  *Settings    // nil: DefaultSettings
	Server    string       // this server, in the audit trail
	Peers     Peers        // tells the other servers of failures; nil: each counts alone
	Log       *slog.Logger // the audit trail; nil: none
	Metrics   prometheus.Registerer
	Clock     clock.Clock
	// Certificate is the certificate (DER) that clients are shown, for SCRAM bound to it; nil: it is not known.
	Certificate func() []byte
	// Clients gives the mail addresses that the certificate of a connection's client stands for, once it has been verified; nil: certificates
	// open nothing.
	Clients func(*tls.ConnectionState) ([]string, error)
}

// Authenticator checks logins. Its methods may run at once.
type Authenticator struct {
	authenticator
}

// New builds an Authenticator. It refuses settings that cannot work.
func New(o Options) (*Authenticator, error) {
	a := &Authenticator{}
	if err := a.init(o); err != nil {
		return nil, fmt.Errorf("authn: %w", err)
	}
	return a, nil
}

// Forget drops all verified credentials and counted failures.
func (a *Authenticator) Forget() { a.forget() }
