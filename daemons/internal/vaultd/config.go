package vaultd

import (
	"net/netip"
	"slices"
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/kit"
)

// Config is the configuration file of vaultd.
//
//	server { name = "vault1" }
//	suffix = "o=shoal"
//	root {
//	  password_file = "/etc/shoal/root.secret"
//	}
//	database { path = "/var/lib/shoal/vault" }
//	listener "ldap" { address = "127.0.0.1:389" }
//	listener "ldaps" {
//	  address = "127.0.0.1:636"
//	  tls     = true
//	}
//	public_tls { ... }
type Config struct {
	Server     conf.Server      `hcl:"server,block"`
	Identity   *conf.Identity   `hcl:"identity,block"`
	Management *conf.Management `hcl:"management,block"`
	Control    *conf.Control    `hcl:"control,block"`
	Log        conf.Log         `hcl:"log,block"`
	Drain      conf.Drain       `hcl:"drain,block"`

	// Suffix is the DN of the top entry. A database belongs to one suffix for good.
	Suffix string `hcl:"suffix,optional" conf:"dn" default:"o=shoal"`
	// SchemaFolder holds more schema: files "*.schema" as OpenLDAP loads them, read in the order of their names.
	SchemaFolder string `hcl:"schema_folder,optional" conf:"path" example:"/etc/shoal/schema"`
	// AllowPlain names listeners on loopback addresses where a password may be sent without TLS.
	AllowPlain []string `hcl:"allow_plain,optional"`

	// ClientCAFile is the CA of users' certificates: with one of them, an account binds by SASL EXTERNAL.
	ClientCAFile string `hcl:"client_ca_file,optional" conf:"path" example:"/etc/shoal/clients.crt"`
	// OperatorDN is whom the certificate of an operator stands for in SASL EXTERNAL; empty: nobody.
	OperatorDN string `hcl:"operator_dn,optional" conf:"dn" example:"cn=admin,o=shoal"`

	Root      Root            `hcl:"root,block"`
	Database  Database        `hcl:"database,block"`
	Listeners []conf.Listener `hcl:"listener,block"`
	// PublicTLS is shown to LDAP clients (StartTLS and ldaps); without it the certificate of identity.
	PublicTLS *conf.PublicTLS `hcl:"public_tls,block"`
	// Shadow makes this vault a copy of another one, which takes no updates itself.
	Shadow   *Shadow  `hcl:"shadow,block"`
	Limits   Limits   `hcl:"limits,block"`
	Password Password `hcl:"password,block"`
	// Ldapi is a socket for programs of this machine.
	Ldapi *Ldapi `hcl:"ldapi,block"`
}

// Ldapi is a Unix socket, where SASL EXTERNAL knows the user of the program at the other end.
type Ldapi struct {
	// Path is where the socket is made.
	Path string `hcl:"path" conf:"path" example:"/run/shoal/ldapi"`
	// RootUsers are the users of the machine who are the root DN; none stand for root.
	RootUsers []string `hcl:"root_users,optional"`
}

// Root is the identity that may write.
type Root struct {
	// DN is the root DN; an empty one stands for cn=admin under the suffix.
	DN string `hcl:"dn,optional" conf:"dn"`
	// PasswordFile holds its password, or the hash of it with its scheme in braces: {ARGON2}$argon2id$...
	PasswordFile string `hcl:"password_file" conf:"secret" example:"/etc/shoal/root.secret"`
}

// Database is the store on disk.
type Database struct {
	// Path is the folder of the database; it is made when it is missing.
	Path string `hcl:"path" conf:"path" example:"/var/lib/shoal/vault"`
	// Indexes are added to the built-in ones: "attribute" for equality and presence, "attribute:sub"
	// for substrings as well. They are built while the vault serves, and used once they are complete.
	Indexes []string `hcl:"indexes,optional" conf:"live"`
	// ChangeLog is how long changes stay in the log from which shadows catch up.
	ChangeLog time.Duration `hcl:"change_log,optional" default:"168h" min:"1m" max:"8760h"`
	// GroupCommit is how many waiting writes share one commit at most.
	GroupCommit int `hcl:"group_commit,optional" default:"256" min:"1" max:"4096"`
}

// Shadow says of whom this vault is a copy.
type Shadow struct {
	// Provider are the URIs of the master, tried in order: ldaps://host:port, or ldap://host:port (then
	// StartTLS is demanded). Without one this vault is the master, until another is promoted: that one it follows.
	Provider []string `hcl:"provider,optional" conf:"ldapuri" example:"ldaps://vault1.example.net:636"`
	// BindDN is whom to bind as there: an entry of shoalRole vault, which gets the passwords too. An empty
	// one stands for this server's own entry.
	BindDN       string `hcl:"bind_dn,optional" conf:"dn"`
	PasswordFile string `hcl:"password_file" conf:"secret" example:"/etc/shoal/vault2.secret"`
	// CAFile verifies the provider's certificate where that is not of the internal CA.
	CAFile string `hcl:"ca_file,optional" conf:"path"`
	// Referral are the URIs that clients with updates are sent to; none stand for those of provider.
	Referral []string `hcl:"referral,optional" conf:"ldapuri"`
	// Timeout bounds connecting to the provider, Probe is how often it is asked for a sign of life (after
	// three without an answer the connection is given up), Retry the longest pause between two attempts.
	Timeout time.Duration `hcl:"timeout,optional" default:"5s" min:"100ms" max:"5m"`
	Probe   time.Duration `hcl:"probe,optional" default:"5s" min:"100ms" max:"5m"`
	Retry   time.Duration `hcl:"retry,optional" default:"5s" min:"100ms" max:"10m"`
	// Lease is for how long this shadow promises its master to vote for no other; it is renewed five times in that
	// time.
	Lease time.Duration `hcl:"lease,optional" default:"10s" min:"500ms" max:"5m"`
}

// Limits bound what clients may ask for.
type Limits struct {
	// Entries and Time bound one search of anybody but the root DN; a page of a paged search counts
	// as one search.
	Entries int           `hcl:"entries,optional" conf:"live" default:"10000" min:"1"`
	Time    time.Duration `hcl:"time,optional" conf:"live" default:"1m" min:"1s" max:"24h"`
	// Message and MessageAnonymous bound a request, the second before a bind.
	Message          conf.Size `hcl:"message,optional" conf:"live" default:"4 MiB" min:"4 KiB" max:"64 MiB"`
	MessageAnonymous conf.Size `hcl:"message_anonymous,optional" conf:"live" default:"64 KiB" min:"4 KiB" max:"64 MiB"`
	// FilterTerms and FilterDepth bound a filter.
	FilterTerms int `hcl:"filter_terms,optional" conf:"live" default:"1024" min:"1" max:"100000"`
	FilterDepth int `hcl:"filter_depth,optional" conf:"live" default:"32" min:"1" max:"100"`
	// Sorted bounds how many entries a sorted search or a list view may find.
	Sorted int `hcl:"sorted,optional" conf:"live" default:"100000" min:"1" max:"10000000"`
	// Operations bounds what one connection has under way; more are not read until some are done.
	Operations int `hcl:"operations,optional" conf:"live" default:"64" min:"1" max:"10000"`
	// Idle ends a connection that asks nothing, Unbound one that never binds, Write one whose client
	// does not take its answers.
	Idle    time.Duration `hcl:"idle,optional" conf:"live" default:"30m" min:"1s"`
	Unbound time.Duration `hcl:"unbound,optional" conf:"live" default:"1m" min:"1s"`
	Write   time.Duration `hcl:"write,optional" conf:"live" default:"30s" min:"1s"`
	// Content bounds the LDIF or the backup by which an operator replaces the whole content over the control API.
	Content conf.Size `hcl:"content,optional" default:"16 GiB" min:"1 MiB" max:"1 TiB"`
}

// Password says how passwords are hashed and verified.
type Password struct {
	// Memory, Passes and Threads are the cost of argon2id for new passwords.
	Memory  conf.Size `hcl:"memory,optional" default:"19 MiB" min:"64 KiB" max:"1 GiB"`
	Passes  int       `hcl:"passes,optional" default:"2" min:"1" max:"100"`
	Threads int       `hcl:"threads,optional" default:"1" min:"1" max:"64"`
	// Workers is how many passwords are hashed or verified at once, 0 for one per processor; Queue how
	// many wait for a worker before a bind is answered "busy".
	Workers int `hcl:"workers,optional" default:"0" max:"1024"`
	Queue   int `hcl:"queue,optional" default:"512" min:"1" max:"100000"`
	// CacheLife is for how long a password that was right is known again without being hashed, 0 for not at all; CacheSize how
	// many are known at most. A changed password, a lock and the like are noticed at once.
	CacheLife time.Duration `hcl:"cache_life,optional" default:"5m" max:"1h"`
	CacheSize int           `hcl:"cache_size,optional" default:"50000" max:"10000000"`
	// ScramIterations is the cost of the SCRAM verifiers that are stored beside a password; ScramSHA1 makes one for
	// SCRAM-SHA-1 beside that for SCRAM-SHA-256.
	ScramIterations int  `hcl:"scram_iterations,optional" default:"10000" min:"4096" max:"1000000"`
	ScramSHA1       bool `hcl:"scram_sha1,optional" default:"true"`
	// Policy is the entry of class pwdPolicy for all who have none nearer; an empty one stands for
	// cn=default,ou=policies,ou=config under the suffix. Where it is not there, MinLength is what is asked of a
	// password that a user chooses.
	Policy    string `hcl:"policy,optional" conf:"dn"`
	MinLength int    `hcl:"min_length,optional" default:"8" max:"256"`
	// StateInterval is how often what was seen of failed logins is written, or told to the master by a shadow.
	StateInterval time.Duration `hcl:"state_interval,optional" default:"5s" min:"100ms" max:"5m"`
}

// RootDN is Root.DN or its default.
func (c *Config) RootDN() string {
	if c.Root.DN != "" {
		return c.Root.DN
	}
	return "cn=admin," + c.Suffix
}

// PolicyDN is Password.Policy or its default.
func (c *Config) PolicyDN() string {
	if c.Password.Policy != "" {
		return c.Password.Policy
	}
	return "cn=default,ou=policies,ou=config," + c.Suffix
}

// ShadowDN is Shadow.BindDN or its default.
func (c *Config) ShadowDN() string {
	if c.Shadow.BindDN != "" {
		return c.Shadow.BindDN
	}
	return "cn=" + c.Server.Name + "," + serversDN(c.Suffix)
}

// Common gives the shared blocks to the kit.
func (c *Config) Common() kit.Common {
	return kit.Common{Server: &c.Server, Identity: c.Identity, Management: c.Management, Control: c.Control, Log: &c.Log, Drain: &c.Drain}
}

// Validate checks what needs several attributes.
func (c *Config) Validate() error {
	if len(c.Listeners) == 0 {
		return conf.Invalid("", "the file has no listener block: write for example listener \"ldap\" { address = \"127.0.0.1:389\" }")
	}
	for _, name := range c.AllowPlain {
		i := slices.IndexFunc(c.Listeners, func(l conf.Listener) bool { return l.Name == name })
		if i < 0 {
			return conf.Invalid("allow_plain", "there is no listener %q", name)
		}
		if a, err := netip.ParseAddrPort(c.Listeners[i].Address); err != nil || !a.Addr().IsLoopback() {
			return conf.Invalid("allow_plain", "listener %q is bound to %s: passwords without TLS are for loopback addresses only", name, c.Listeners[i].Address)
		}
	}
	if s := c.Shadow; s != nil {
		if s.CAFile == "" && c.Identity == nil {
			return conf.Invalid("ca_file", "needs a file, or a block identity: the master's certificate must be verified")
		}
	}
	if c.PublicTLS != nil && c.PublicTLS.ClientCAFile != "" {
		return conf.Invalid("public_tls", "client_ca_file stands outside of the block here: it is for every listener")
	}
	for _, l := range c.Listeners {
		if l.TLS && c.PublicTLS == nil && c.Identity == nil {
			return conf.Invalid("public_tls", "listener %q needs a certificate: add a block public_tls or identity", l.Name)
		}
	}
	return nil
}
