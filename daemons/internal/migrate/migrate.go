// Package migrate brings the users of a domain here from an IMAP server somewhere else, each with password and mail.
//
//	password   an account with shoalMigrating "password" has none yet. What its owner shows at a login is tried at the old
//	           server; if it is right there it becomes the account's password (Directory.Bind).
//	mail       an account with shoalMigrating "mail" gets its mailboxes copied, round after round, until the operator
//	           finishes the migration (Migrator.Run). As long as nothing else has come into a mailbox here its messages keep
//	           UIDVALIDITY and UIDs.
//
// # Who copies
//
// Any box that can log in at the old server: with the master user's password, which stands in the domain's entry, or with the owner's, which
// a box knows from a login and keeps in memory only. Of several boxes one has the account's claim (mailstore.Account.Claim),
// an exclusive link that expires: when the box dies another one takes over. Claims are extended before each batch; a batch that
// takes longer than a claim may be copied twice, and is never lost.
//
// # What a round does
//
// For each mailbox, with what was noted of it in the account's attributes (mark.go): new messages are copied in ascending
// order of UID, and the mark moves after each commit. After a crash in between, the first batch is compared with what is
// there, by content and date. Flags that have changed at the old server since the last round replace ours (CONDSTORE, RFC 7162; without
// it flags are those of the time of copying); messages that have gone there are expunged, unless suspiciously many
// have.
//
// Left out on purpose: mailboxes that were renamed or deleted at the old server after they were copied (the new name is
// another mailbox, the old one stays); ACLs, quotas and Sieve scripts.
package migrate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// Settings are the attributes of the block migration in a box's configuration, with their defaults.
type Settings struct {
	// Copies is how many accounts are copied at once.
	Copies int `hcl:"copies,optional" default:"2" min:"0" max:"1000"`
	// Checks is how many logins are tried at old servers at once.
	Checks int `hcl:"checks,optional" default:"16" min:"1" max:"1000"`
	// Interval is the time between two rounds of an account.
	Interval time.Duration `hcl:"interval,optional" default:"15m" min:"1s" max:"24h"`
	// Scan is the time between two looks for accounts that are due.
	Scan time.Duration `hcl:"scan,optional" default:"10s" min:"100ms" max:"1h"`
	// Wait is how long a login waits for the first round of its account.
	Wait time.Duration `hcl:"wait,optional" default:"20s" min:"0s" max:"10m"`
	// Hold refuses a login for now if the first round of its account has not ended after that time; otherwise the user sees the
	// mail come in.
	Hold bool `hcl:"hold,optional" default:"false"`
	// Timeout bounds each answer of an old server.
	Timeout time.Duration `hcl:"timeout,optional" default:"30s" min:"1s" max:"10m"`
	// MaxMessage is the largest message that is copied. Larger ones are counted and stay where they are.
	MaxMessage conf.Size `hcl:"max_message,optional" default:"110 MiB" min:"1 KiB" max:"4 GiB"`
	// Claim is how long a box may copy an account without a sign of life before another one takes over.
	Claim time.Duration `hcl:"claim,optional" default:"30s" min:"5s" max:"1h"`
	// CAFile holds the certificates by which old servers are verified; empty: those of the operating system.
	CAFile string `hcl:"ca_file,optional" conf:"path"`
}

// Checking is the block migration of a switch, which takes passwords and copies nothing: the part of Settings that it needs.
type Checking struct {
	// Checks is how many logins are tried at old servers at once.
	Checks int `hcl:"checks,optional" default:"16" min:"1" max:"1000"`
	// Timeout bounds each answer of an old server.
	Timeout time.Duration `hcl:"timeout,optional" default:"30s" min:"1s" max:"10m"`
	// CAFile holds the certificates by which old servers are verified; empty: those of the operating system.
	CAFile string `hcl:"ca_file,optional" conf:"path"`
}

// Settings are those of a Migrator without a Store.
func (c Checking) Settings() Settings {
	return Settings{Checks: c.Checks, Timeout: c.Timeout, CAFile: c.CAFile}
}

// Store is the message store: *mailstore.Store.
type Store interface {
	Account(ctx context.Context, volume, accountID string) (*mailstore.Account, error)
	AdoptAccount(ctx context.Context, volume, accountID string, o mailstore.InboxOptions) (*mailstore.Account, error)
	Stage(ctx context.Context, volume string, r io.Reader, max int64) (*mailstore.Staged, error)
}

// Options of New. Client, Connect, Log and Settings are required; without Store nothing is copied, and only passwords are taken.
type Options struct {
	Client   *dirclient.Client
	Connect  func(ctx context.Context) (*dirclient.Admin, error) // to the directory, as this server
	Bind     func(ctx context.Context, uri, dn, password string) error
	Store    Store
	Server   string
	Settings Settings
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Clock    clock.Clock
}

// Migrator takes passwords and copies mail. Its methods may run at once.
type Migrator struct {
	o      Options
	m      *metrics
	roots  *x509.CertPool
	checks chan struct{}
	wake   chan struct{}

	writing sync.Mutex
	writer  *dirclient.Admin

	mu      sync.Mutex
	secrets map[string]secret             // by account id: what its owner showed
	made    map[string]*dirclient.Account // by address: accounts made or changed here that lookups may not show so yet
	copied  map[string]bool               // by account id: the first round is over
	jobs    map[string]*job               // by account id
	rounds  map[string]chan struct{}      // by account id: closed when a round ends
}

// secret is a password at the old server, kept in memory only.
type secret struct {
	account  *dirclient.Account
	password string
}

// maxSecrets bounds the passwords in memory.
const maxSecrets = 100_000

// New makes a Migrator. It refuses settings that cannot work.
func New(o Options) (*Migrator, error) {
	if o.Client == nil || o.Connect == nil || o.Bind == nil || o.Log == nil {
		return nil, errors.New("migrate: Options.Client, Connect, Bind and Log are required")
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	m := &Migrator{o: o, checks: make(chan struct{}, max(o.Settings.Checks, 1)), wake: make(chan struct{}, 1), secrets: map[string]secret{},
		made: map[string]*dirclient.Account{}, copied: map[string]bool{}, jobs: map[string]*job{}, rounds: map[string]chan struct{}{}}
	if o.Settings.CAFile != "" {
		text, err := os.ReadFile(o.Settings.CAFile)
		if err != nil {
			return nil, fmt.Errorf("migrate: ca_file: %w", err)
		}
		m.roots = x509.NewCertPool()
		if !m.roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("migrate: ca_file %s: holds no certificate in PEM", o.Settings.CAFile)
		}
	}
	var err error
	if m.m, err = newMetrics(o.Metrics); err != nil {
		return nil, fmt.Errorf("migrate: metrics: %w", err)
	}
	return m, nil
}

// Close ends the connection to the directory.
func (m *Migrator) Close() error {
	m.writing.Lock()
	defer m.writing.Unlock()
	if m.writer == nil {
		return nil
	}
	err := m.writer.Close()
	m.writer = nil
	return err
}

// write runs f on the connection to the directory, and once more on a new one if the old one is dead.
func (m *Migrator) write(ctx context.Context, f func(a *dirclient.Admin) error) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	for try := 0; ; try++ {
		fresh := m.writer == nil
		if fresh {
			a, err := m.o.Connect(ctx)
			if err != nil {
				return err
			}
			m.writer = a
		}
		err := f(m.writer)
		if !errors.Is(err, dirclient.ErrUnavailable) && !errors.Is(err, dirclient.ErrOutcomeUnknown) {
			return err
		}
		_ = m.writer.Close() // it is broken, or soon asked again
		m.writer = nil
		if fresh || try > 0 {
			return err
		}
	}
}

func (m *Migrator) tls(host string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: m.roots}
}
