package switchd

import (
	"context"
	"strings"
	"time"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/hint"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/migrate"
	"shoal/daemons/internal/outbound"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/relay"
	"shoal/daemons/internal/route"
	"shoal/daemons/internal/smtpsession"
)

// Config is the configuration file of switchd.
//
//	server { name = "switch1" }
//	hostname = "mx1.example.net"
//	identity   { ... }
//	public_tls { ... }
//	directory {
//	  uris          = ["ldaps://vault1:636"]
//	  bind_dn       = "cn=switch1,ou=servers,ou=config,o=shoal"
//	  password_file = "/etc/shoal/switch1.secret"
//	}
//	listener "smtp"       { address = "0.0.0.0:25" }
//	listener "submission" { address = "0.0.0.0:587" }
//	listener "submissions" {
//	  address = "0.0.0.0:465"
//	  tls     = true
//	}
//	lmtp { addresses = ["box:box1", "lb:24"] }
//	queue {
//	  path = "/srv/shoal/queue"
//	  id   = "6f0c1f0e-90b4-4a0e-8c7e-0d0a5d2f8a11"
//	}
//
// Without a queue block nothing is queued: mail goes to the boxes at once or is answered "try again later", and nothing
// goes to other systems.
//
// The label of a listener says what is served there: smtp, submission, submissions, or relay (what the boxes send, over LMTP with
// their certificates), or hint (what the other servers say of failed logins), alone or followed by a hyphen and whatever tells several of a kind apart ("smtp-inside").
type Config struct {
	Server     conf.Server      `hcl:"server,block"`
	Identity   *conf.Identity   `hcl:"identity,block"`
	Management *conf.Management `hcl:"management,block"`
	Control    *conf.Control    `hcl:"control,block"`
	Log        conf.Log         `hcl:"log,block"`
	Drain      conf.Drain       `hcl:"drain,block"`

	// Hostname is what the server calls itself in SMTP and in Received fields: its public name. Empty: the
	// name of server.
	Hostname string `hcl:"hostname,optional" default:""`

	Directory conf.Directory  `hcl:"directory,block"`
	PublicTLS *conf.PublicTLS `hcl:"public_tls,block"`
	Listeners []conf.Listener `hcl:"listener,block"`

	LMTP       deliver.Settings   `hcl:"lmtp,block"`
	SMTP       smtpsession.Limits `hcl:"smtp,block"`
	Submission smtpsession.Limits `hcl:"submission,block"`
	Login      authn.Settings     `hcl:"login,block"`
	Route      route.Settings     `hcl:"route,block"`
	// Migration says how first logins by submission are checked at the servers that domains come from.
	Migration migrate.Checking `hcl:"migration,block"`
	Hints     hint.Settings    `hcl:"hints,block"`

	Queue    *Queue            `hcl:"queue,block"`
	Relay    relay.Settings    `hcl:"relay,block"`
	Outbound outbound.Settings `hcl:"outbound,block"`
}

// Queue says where the queue lies: a folder that all switches mount, or one of this switch alone.
type Queue struct {
	Path string `hcl:"path" conf:"path" example:"/srv/shoal/queue"`
	// ID must be the id in the queue's marker file, so that an empty mount point or the wrong export
	// is noticed.
	ID string `hcl:"id" example:"6f0c1f0e-90b4-4a0e-8c7e-0d0a5d2f8a11"`
	// Beat is how often this switch gives a sign of life and looks for entries of switches that are gone,
	// DeadAfter how old the last sign must be. MaxEntries bounds the entries kept in memory.
	Beat       time.Duration `hcl:"beat,optional" default:"10s" min:"100ms" max:"10m"`
	DeadAfter  time.Duration `hcl:"dead_after,optional" default:"60s" min:"1s" max:"1h"`
	MaxEntries int           `hcl:"max_entries,optional" default:"1000000" min:"100" max:"100000000"`
}

// Validate checks what needs both.
func (q *Queue) Validate() error {
	if q.DeadAfter < 3*q.Beat {
		return conf.Invalid("dead_after", "must be at least three times beat (%v): a switch that is slow once would be taken for dead", q.Beat)
	}
	return nil
}

// Kinds of listeners.
const (
	kindSMTP        = "smtp"
	kindSubmission  = "submission"
	kindSubmissions = "submissions"
	kindRelay       = "relay"
	kindHint        = "hint"
)

// kind is what a listener serves, by its label.
func kind(l conf.Listener) string {
	k, _, _ := strings.Cut(l.Name, "-")
	return k
}

// hostname is Hostname or its default.
func (c *Config) hostname() string {
	if c.Hostname != "" {
		return c.Hostname
	}
	return c.Server.Name
}

// Common is for the kit.
func (c *Config) Common() kit.Common {
	return kit.Common{
		Server: &c.Server, Identity: c.Identity, Management: c.Management, Control: c.Control, Log: &c.Log, Drain: &c.Drain,
	}
}

// Validate checks what needs several blocks.
func (c *Config) Validate() error {
	if c.Identity == nil {
		return conf.Invalid("server", "the file has no identity block: boxes and the directory know this server by its certificate: write identity { cert_file = ... key_file = ... ca_file = ... }")
	}
	if c.Directory.BindDN == "" {
		return conf.Invalid("directory", "bind_dn is missing: write bind_dn = %q and its password_file", dirclient.ServerDN(c.Directory.Suffix, c.Server.Name))
	}
	if c.Hostname != "" {
		if _, err := mailaddr.New("postmaster", c.Hostname); err != nil || strings.HasPrefix(c.Hostname, "[") {
			return conf.Invalid("hostname", "%q is no host name: write the public name of this server, such as \"mx1.example.net\"", c.Hostname)
		}
	}
	if len(c.Listeners) == 0 {
		return conf.Invalid("server", "the file has no listener block: write for example listener \"smtp\" { address = \"0.0.0.0:25\" }")
	}
	for _, l := range c.Listeners {
		k := kind(l)
		switch {
		case k != kindSMTP && k != kindSubmission && k != kindSubmissions && k != kindRelay && k != kindHint:
			return conf.Invalid("listener", "listener %q: switchd serves smtp, submission, submissions, relay and hint: begin its name with one of these", l.Name)
		case k == kindSubmissions && !l.TLS:
			return conf.Invalid("listener", "listener %q begins with TLS: write tls = true in it, or name it \"submission\"", l.Name)
		case k != kindSubmissions && l.TLS:
			return conf.Invalid("listener", "listener %q: tls = true is for \"submissions\" only: smtp, submission and relay use STARTTLS", l.Name)
		case k == kindHint && len(l.ProxyFrom) > 0:
			return conf.Invalid("listener", "listener %q: servers speak to each other there without a balancer: leave proxy_from out", l.Name)
		case k == kindRelay && c.Queue == nil:
			return conf.Invalid("listener", "listener %q: what boxes send goes into the queue: add a block queue { path = ... id = ... }", l.Name)
		case k != kindSMTP && k != kindRelay && k != kindHint && c.PublicTLS == nil:
			return conf.Invalid("listener", "listener %q needs a certificate for its clients: add a block public_tls { cert_file = ... key_file = ... }", l.Name)
		}
	}
	return nil
}

// Check looks whether the files that are named are there and fit.
func (c *Config) Check(context.Context) error {
	creds, err := pki.Load(pki.Files{Cert: c.Identity.CertFile, Key: c.Identity.KeyFile, CA: c.Identity.CAFile})
	if err != nil {
		return err
	}
	if _, err := dirclient.OptionsOf(c.Directory, creds); err != nil {
		return err
	}
	if c.PublicTLS != nil {
		if _, err := pki.LoadPublic(c.PublicTLS.CertFile, c.PublicTLS.KeyFile); err != nil {
			return err
		}
	}
	return kit.OwnIdentity(creds, pki.RoleSwitch, c.Server.Name)
}
