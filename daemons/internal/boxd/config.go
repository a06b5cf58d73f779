package boxd

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/filter"
	"shoal/daemons/internal/hint"
	"shoal/daemons/internal/imapsession"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/migrate"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/popsession"
	"shoal/daemons/internal/sievesession"
	"shoal/daemons/internal/vfs"
)

// Config is the configuration file of boxd.
//
//	server { name = "box1" }
//	identity   { ... }
//	public_tls { ... }
//	directory {
//	  uris          = ["ldaps://vault1:636"]
//	  bind_dn       = "cn=box1,ou=servers,ou=config,o=shoal"
//	  password_file = "/etc/shoal/box1.secret"
//	}
//	volume "vol01" {
//	  path = "/srv/shoal/vol01"
//	  id   = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"
//	}
//	listener "imap" { address = "127.0.0.1:143" }
//	listener "imaps" {
//	  address = "127.0.0.1:993"
//	  tls     = true
//	}
//	listener "lmtp" { address = "127.0.0.1:24" }
//	listener "hint" { address = "127.0.0.1:7001" }
//
// The label of a listener says what is served there: imap, imaps, pop3, pop3s, managesieve, lmtp or hint, alone or followed by a
// hyphen and whatever tells several of a kind apart ("imap-inside").
type Config struct {
	Server     conf.Server      `hcl:"server,block"`
	Identity   *conf.Identity   `hcl:"identity,block"`
	Management *conf.Management `hcl:"management,block"`
	Control    *conf.Control    `hcl:"control,block"`
	Log        conf.Log         `hcl:"log,block"`
	Drain      conf.Drain       `hcl:"drain,block"`

	Directory conf.Directory  `hcl:"directory,block"`
	PublicTLS *conf.PublicTLS `hcl:"public_tls,block"`
	Volumes   []conf.Volume   `hcl:"volume,block" conf:"live"`
	Listeners []conf.Listener `hcl:"listener,block"`

	Login authn.Settings     `hcl:"login,block"`
	IMAP  imapsession.Limits `hcl:"imap,block"`
	POP   popsession.Limits  `hcl:"pop,block"`
	LMTP  LMTP               `hcl:"lmtp,block"`

	// Sieve is what scripts may do, ManageSieve who may change them, Relay where what they send goes: the relay listeners of
	// switches. Without it they can send nothing.
	Sieve       filter.Settings     `hcl:"sieve,block"`
	ManageSieve sievesession.Limits `hcl:"managesieve,block"`
	Relay       *deliver.Settings   `hcl:"relay,block"`

	// Migration says how mail and passwords are fetched from the servers that domains come from.
	Migration migrate.Settings `hcl:"migration,block"`

	Hints hint.Settings `hcl:"hints,block"`
	Store Store         `hcl:"store,block"`
}

// LMTP bounds what switches may send.
type LMTP struct {
	// MaxMessage is the largest message that is taken: more than switches take in, because they add to it.
	// MaxRecipients is the most recipients it may have.
	MaxMessage    conf.Size `hcl:"max_message,optional" default:"110 MiB" min:"1 KiB" max:"4 GiB"`
	MaxRecipients int       `hcl:"max_recipients,optional" default:"1000" min:"1" max:"100000"`
	// ReadTimeout ends a connection whose switch says nothing for so long (RFC 5321 §4.5.3.2).
	ReadTimeout time.Duration `hcl:"read_timeout,optional" default:"5m" min:"1s" max:"1h"`
	// OverQuota says what becomes of mail for an account that is full: reject (552) or defer (452), so that the
	// switch tries again.
	OverQuota string `hcl:"over_quota,optional" default:"reject" oneof:"reject defer"`
	// DuplicateWindow is how long a message is known that was delivered without its switch hearing of it: when
	// the switch tries again within that time, it is not delivered twice. 0 delivers it again. Longer than
	// switches keep mail in the queue makes no sense.
	DuplicateWindow time.Duration `hcl:"duplicate_window,optional" default:"168h" min:"0s" max:"8760h"`
}

// Store says how the store works. ReCheck apart, what is set here must not differ between boxes.
type Store struct {
	// VolumeFolder is where volumes are mounted, each under its name in the directory. What is found there is served
	// without a volume block, and without a restart, if the directory lists it with the id in its marker and it is not
	// closed.
	VolumeFolder string `hcl:"volume_folder,optional" conf:"path" example:"/srv/shoal"`
	// Retention is how long deleted mail and old parts of the log are kept on the volume.
	Retention time.Duration `hcl:"retention,optional" default:"24h" min:"1h" max:"8760h"`
	// ReCheck is how often a watched mailbox is looked at although no hint came.
	ReCheck time.Duration `hcl:"recheck,optional" default:"5m" min:"1s" max:"24h"`
	// Cache bounds the mailboxes kept in memory, StageMemory the part of a message on its way that is.
	Cache       conf.Size `hcl:"cache,optional" default:"256 MiB" min:"1 MiB"`
	StageMemory conf.Size `hcl:"stage_memory,optional" default:"256 KiB" min:"4 KiB" max:"1 GiB"`
	// SummaryCache bounds the summaries of messages kept in memory: envelopes, usual header fields, structures, previews.
	SummaryCache conf.Size `hcl:"summary_cache,optional" default:"64 MiB" min:"1 MiB"`
	// VolumeCalls bounds the file operations under way per volume; CallTimeout is how long a session
	// waits for a volume that does not answer.
	VolumeCalls int           `hcl:"volume_calls,optional" default:"128" min:"1" max:"4096"`
	CallTimeout time.Duration `hcl:"call_timeout,optional" default:"30s" min:"100ms" max:"1h"`
}

// Kinds of listeners.
const (
	kindIMAP  = "imap"
	kindIMAPS = "imaps"
	kindPOP   = "pop3"
	kindPOPS  = "pop3s"
	kindSieve = "managesieve"
	kindLMTP  = "lmtp"
	kindHint  = "hint"
)

var kinds = []string{kindIMAP, kindIMAPS, kindPOP, kindPOPS, kindSieve, kindLMTP, kindHint}

// kind is what a listener serves, by its label.
func kind(l conf.Listener) string {
	k, _, _ := strings.Cut(l.Name, "-")
	return k
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
		return conf.Invalid("server", "the file has no identity block: boxes, switches and the directory know this server by its certificate: write identity { cert_file = ... key_file = ... ca_file = ... }")
	}
	if c.Directory.BindDN == "" {
		return conf.Invalid("directory", "bind_dn is missing: write bind_dn = %q and its password_file", dirclient.ServerDN(c.Directory.Suffix, c.Server.Name))
	}
	if len(c.Volumes) == 0 && c.Store.VolumeFolder == "" {
		return conf.Invalid("server", "the file has no volume block: write for example volume \"vol01\" { path = \"/srv/shoal/vol01\" id = \"...\" } with the id in the file shoal-volume there")
	}
	if len(c.Listeners) == 0 {
		return conf.Invalid("server", "the file has no listener block: write for example listener \"imap\" { address = \"127.0.0.1:143\" }")
	}
	hints := false
	for i := range c.Listeners {
		l := &c.Listeners[i]
		k := kind(*l)
		switch {
		case !slices.Contains(kinds, k):
			return conf.Invalid("listener", "listener %q: boxd serves %s: begin its name with one of these", l.Name, strings.Join(kinds, ", "))
		case (k == kindIMAPS || k == kindPOPS) && !l.TLS:
			return conf.Invalid("listener", "listener %q: %s begins with TLS: write tls = true in it, or name it %q", l.Name, k, strings.TrimSuffix(k, "s"))
		case k != kindIMAPS && k != kindPOPS && l.TLS:
			return conf.Invalid("listener", "listener %q: tls = true is for imaps and pop3s only: imap, pop3, managesieve and lmtp use STARTTLS, and hint demands TLS in any case", l.Name)
		case k != kindLMTP && k != kindHint && c.PublicTLS == nil:
			return conf.Invalid("listener", "listener %q needs a certificate for its clients: add a block public_tls { cert_file = ... key_file = ... }", l.Name)
		case k == kindHint && len(l.ProxyFrom) > 0:
			return conf.Invalid("listener", "listener %q: boxes send hints to each other without a balancer: leave proxy_from out", l.Name)
		}
		hints = hints || k == kindHint
	}
	if !hints {
		return conf.Invalid("listener", "there is no listener \"hint\": without one the clients of this box would learn of changes made through other boxes late")
	}
	if _, err := c.hintAddress(); err != nil {
		return err
	}
	return nil
}

// hintAddress is what this box writes into the mailboxes that it watches.
func (c *Config) hintAddress() (string, error) {
	if c.Hints.Address != "" {
		return c.Hints.Address, nil
	}
	for _, l := range c.Listeners {
		if kind(l) != kindHint {
			continue
		}
		host, _, err := net.SplitHostPort(l.Address)
		ip := net.ParseIP(host)
		if err != nil || host == "" || ip != nil && ip.IsUnspecified() {
			return "", conf.Invalid("hints", "listener %q is bound to every address (%s): say where the other boxes reach it: hints { address = \"box1.example.net:7001\" }", l.Name, l.Address)
		}
		return l.Address, nil
	}
	return "", nil
}

// Check looks whether the volumes are there and are the right ones.
func (c *Config) Check(context.Context) error {
	s, err := mailstore.New(mailstore.Options{
		Server: c.Server.Name, FS: vfs.OS(), Clock: clock.System(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	err = addVolumes(s, c.Volumes)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	creds, err := pki.Load(pki.Files{Cert: c.Identity.CertFile, Key: c.Identity.KeyFile, CA: c.Identity.CAFile})
	if err != nil {
		return err
	}
	if _, err := dirclient.OptionsOf(c.Directory, creds); err != nil {
		return err
	}
	return kit.OwnIdentity(creds, pki.RoleBox, c.Server.Name)
}
