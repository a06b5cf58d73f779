// Package dirclient is how a daemon reads the directory: typed answers about accounts, domains, servers and
// volumes, password checks by LDAP bind, and (type Admin) the writes that the operator's tools make.
//
// # What it promises
//
//   - Every call ends: it has a time-out of its own beside the caller's context.
//   - Several directory servers are used at once, the least busy first. One that dies costs the calls that
//     were on it one retry; it gets no further calls until a probe in the background has reached it again.
//   - Only reads are tried again. A write is sent once, and an error after sending it says that its outcome
//     is unknown.
//   - A user's password is checked on a connection that does nothing but binds. The connections that search
//     are bound as the server and never as anybody else, so no login can change what a search may see.
//   - Answers are cached for a short time (30 s, "no such" 5 s), with one question on the way per key. A change of
//     the directory ends their life within a second (follow.go), where the directory tells of changes. While
//     no directory server answers, an answer that is past its time is given all the same, up to a bounded age.
//   - "There is no such account" (ErrNoSuchAccount, ErrNoSuchAlias, ErrNoSuchDomain) is said only when a directory server
//     said so. Everything else is ErrUnavailable or ErrMalformed: temporary, never a reason to bounce mail.
//
// # What lies where
//
// Below the suffix (o=shoal unless set):
//
//	ou=servers,ou=config            cn=<name>                    shoalServer
//	ou=volumes,ou=config            cn=<name>                    shoalVolume
//	ou=domains                      associatedDomain=<domain>    shoalDomain, domainRelatedObject
//	associatedDomain=..,ou=domains  uid=<local part>             inetOrgPerson, inetLocalMailRecipient, shoalAccount
//	associatedDomain=..,ou=domains  cn=<local part>              shoalAlias
//
// entries.go holds the templates of these entries, lookup.go reads them back.
//
// A shadow refers writes to the master: Admin goes there, over TLS that is verified in the same way, binds, and
// stays.
//
// Left out on purpose: referrals of reads (a directory of Shoal gives none).
package dirclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/pki"
)

// Statuses of accounts and domains (shoalAccountStatus, shoalDomainStatus).
const (
	StatusActive    = "active"    // everything works
	StatusSuspended = "suspended" // no login; an account gets its mail, a domain none for now; nothing is deleted
	StatusClosed    = "closed"    // no login, mail is refused for good
)

// States of volumes (shoalVolumeState).
const (
	VolumeActive   = "active"   // takes new accounts
	VolumeDraining = "draining" // serves its accounts, takes no new ones
	VolumeClosed   = "closed"   // not served
)

// Services that a server entry can list an address for (shoalAddress: "<service> <host:port>").
const (
	ServiceSMTP       = "smtp"
	ServiceSubmission = "submission"
	ServiceIMAP       = "imap"
	ServiceIMAPS      = "imaps"
	ServiceLMTP       = "lmtp"
	ServiceHint       = "hint"
	ServiceLDAP       = "ldap"
	ServiceLDAPS      = "ldaps"
	ServiceControl    = "control"
	ServiceManagement = "management"
)

// Account is one mail account as the directory describes it. It is shared between callers: read only.
type Account struct {
	DN                string
	Address           string    // primary address (mail), lower case
	Domain            string    // the domain of the entry, lower case
	ID                string    // shoalAccountId: immutable, names the account's folder on its volume
	Volume            string    // shoalVolumeName: where the mail lies
	Status            string    // StatusActive, StatusSuspended or StatusClosed
	DisplayName       string    // cn
	Addresses         []string  // every address (mailLocalAddress), the primary among them, lower case
	QuotaStorage      int64     // bytes; 0: no limit
	QuotaMessages     int64     // messages; 0: no limit
	CredentialVersion int64     // moves with each change of the password
	SessionEpoch      int64     // moves when all sessions and session tokens are ended
	LastLogin         time.Time // zero: none is known; right to a day or so
	Forward           []string  // where its mail is sent on to; empty: it is not
	ForwardKeep       bool      // what is sent on is kept in the mailbox as well
	Migrating         []string  // what is still to come from the old server: MigratePassword, MigrateMail
	Public            bool      // its mailboxes are public ones, and nobody's own
	Provisional       bool      // there is no entry yet: a login that succeeds makes it (package migrate)
}

// Active says whether the account may log in, as far as its own entry goes.
func (a *Account) Active() bool { return a.Status == StatusActive }

// Domain is one mail domain of ours. Read only.
type Domain struct {
	DN            string
	Name          string     // lower case, A-labels as stored
	Status        string     // StatusActive, StatusSuspended or StatusClosed
	DefaultVolume string     // where new accounts' mail goes
	CatchAll      string     // address that takes mail for unknown local parts; empty: refuse
	QuotaStorage  int64      // of new accounts, bytes; 0: DefaultQuotaStorage
	QuotaMessages int64      // of new accounts; 0: no limit
	SieveBefore   string     // script that runs before each account's own; empty: none
	SieveAfter    string     // and the one after it
	SieveGlobal   []string   // scripts that others may include: name, LF, text
	Subaddress    string     // where mail for user+detail goes: SubaddressInbox, SubaddressFolder, SubaddressCreate
	Migration     *Migration // where the domain is migrated from; nil: it is not
}

// Server is one server of the service, of any role. Read only.
type Server struct {
	DN        string
	Name      string
	Role      string              // shoalRole: switch, box, vault ...
	Addresses map[string][]string // by service: "host:port" each
	Version   string              // shoalVersion, when the entry has it
	TokenKeys []string            // shoalTokenKey: public keys of the session tokens that it signs (package token)
}

// Volume is one store volume. Read only.
type Volume struct {
	DN    string
	Name  string
	ID    string // the uuid in the volume's marker file
	State string // VolumeActive, VolumeDraining or VolumeClosed
}

// Options of New. URIs, BindDN, PasswordFile and TLS are required. A zero value of the rest means its default: that
// of conf.Directory where the setting is there, which OptionsOf copies from.
type Options struct {
	URIs         []string    // ldaps://host:port or ldap://host:port (then StartTLS is demanded)
	BindDN       string      // the server's own entry
	PasswordFile string      // its password, read again for each new connection
	TLS          *tls.Config // how the directory servers are verified; an empty ServerName is filled from the URI
	Suffix       string

	DialTimeout    time.Duration // connect, TLS and service bind together
	Timeout        time.Duration // a whole call, retries included
	AttemptTimeout time.Duration // one try of a read while another server could be asked instead; 1 s
	BindTimeout    time.Duration // a password check (the directory may have a queue of them): 10 s

	MaxConnections int // connections in use for searches, all servers together; as many again for password checks

	CacheSize   int           // accounts, and again as many ids and domains
	CacheTTL    time.Duration // life of an answer; negative: none
	NegativeTTL time.Duration // life of "there is no such"; negative: none
	Follow      bool          // hear of changes by a persist search (RFC 4533) and forget what they concern
	// Changed is called with the lower-case names of entries that were seen to change, beside their being forgotten; nil names: anything
	// may have changed. It must not block.
	Changed func(names map[string]bool)

	StaleFor time.Duration // how long past its life an answer is used while no server answers; negative: never

	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   clock.Clock
}

// Defaults of what is no setting.
const (
	defaultAttemptTimeout = 1 * time.Second
	defaultBindTimeout    = 10 * time.Second
)

// OptionsOf takes the options from a directory block. The directory servers must show a certificate of role vault
// of the internal CA or, where the block names a CA file, any certificate of that CA for their host name. Log, Metrics and
// Clock remain to be set.
func OptionsOf(d conf.Directory, creds *pki.Credentials) (Options, error) {
	o := optionsOf(d)
	if d.CAFile == "" {
		if creds == nil {
			return Options{}, errors.New("dirclient: neither an identity nor a CA file to verify the directory with")
		}
		o.TLS = creds.ClientTLS(pki.RoleVault)
		return o, nil
	}
	f, err := os.Open(d.CAFile)
	if err != nil {
		return Options{}, fmt.Errorf("directory ca_file: %w", err)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxCAFile))
	if err != nil {
		return Options{}, fmt.Errorf("directory ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return Options{}, fmt.Errorf("directory ca_file %s: holds no certificate in PEM", d.CAFile)
	}
	o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	return o, nil
}

// maxCAFile bounds a CA file, in bytes.
const maxCAFile = 1 << 20

func optionsOf(d conf.Directory) Options {
	return Options{
		URIs: d.URIs, BindDN: d.BindDN, PasswordFile: d.PasswordFile, Suffix: d.Suffix,
		DialTimeout: d.ConnectTimeout, Timeout: d.RequestTimeout, MaxConnections: d.Connections,
		CacheSize: d.CacheEntries, CacheTTL: orNever(d.CacheLife), NegativeTTL: orNever(d.CacheNegativeLife),
		StaleFor: orNever(d.CacheStaleLife), Follow: true,
	}
}

// orNever keeps a setting of zero from being taken for an absent one.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}
