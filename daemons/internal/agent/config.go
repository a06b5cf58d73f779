package agent

import (
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/kit"
)

// Config is the configuration file of shoal-agent. A machine has the blocks of its role:
//
//	server { name = "lb1" }
//	identity { ... }
//	control { address = "[::]:9145" }
//	haproxy {
//	  state  = "/var/lib/shoal-agent"
//	  base   = "/etc/haproxy/haproxy.cfg"
//	  pools  = "/etc/haproxy/shoal-pools.cfg"
//	  socket = "/run/haproxy/admin.sock"
//	  master = "/run/haproxy-master.sock"
//	}
type Config struct {
	Server     conf.Server      `hcl:"server,block"`
	Identity   conf.Identity    `hcl:"identity,block"`
	Management *conf.Management `hcl:"management,block"`
	// Control is where the agent's own API is, too.
	Control conf.Control `hcl:"control,block"`
	Log     conf.Log     `hcl:"log,block"`
	Drain   conf.Drain   `hcl:"drain,block"`

	HAProxy   *HAProxy        `hcl:"haproxy,block"`
	Exports   *Exports        `hcl:"exports,block"`
	Enrolment *Enrolment      `hcl:"enrolment,block"`
	Listeners []conf.Listener `hcl:"listener,block"`
}

// HAProxy says where the balancer's files and sockets are.
type HAProxy struct {
	// State is the folder where the agent keeps what it was asked for.
	State string `hcl:"state" conf:"path" example:"/var/lib/shoal-agent"`
	// Base is the part of the configuration that is not the agent's (global, defaults); it is read by checks only. HAProxy
	// must be started with both files.
	Base string `hcl:"base" conf:"path" example:"/etc/haproxy/haproxy.cfg"`
	// Pools is the file that the agent writes: a frontend and a backend for each pool.
	Pools string `hcl:"pools" conf:"path" example:"/etc/haproxy/shoal-pools.cfg"`
	// Socket is HAProxy's runtime socket (level admin), Master that of its master process (haproxy -W -S), by which it
	// reloads when a pool is added or changed.
	Socket string `hcl:"socket" conf:"path" example:"/run/haproxy/admin.sock"`
	Master string `hcl:"master" conf:"path" example:"/run/haproxy-master.sock"`
	// Program is the program that checks a configuration before it is put into force.
	Program string `hcl:"program,optional" conf:"path" default:"/usr/sbin/haproxy"`
	// Timeout bounds one command to HAProxy, and a reload.
	Timeout time.Duration `hcl:"timeout,optional" default:"10s" min:"1s" max:"5m"`
}

// Exports says where the volumes are and how they are exported.
type Exports struct {
	// State is the folder where the agent keeps what it was asked for.
	State string `hcl:"state" conf:"path" example:"/var/lib/shoal-agent"`
	// Root is the folder that holds the volumes, each in a folder of its name.
	Root string `hcl:"root" conf:"path" example:"/srv/shoal"`
	// File is what exportfs reads: a file of its own in /etc/exports.d.
	File string `hcl:"file,optional" conf:"path" default:"/etc/exports.d/shoal.exports"`
	// Program puts it into force.
	Program string `hcl:"program,optional" conf:"path" default:"/usr/sbin/exportfs"`
	// MailOwner and QueueOwner are the numeric user and group, uid:gid, that own volumes of these kinds; they are the same on
	// every image.
	MailOwner  string `hcl:"mail_owner,optional" default:"0:0"`
	QueueOwner string `hcl:"queue_owner,optional" default:"0:0"`
	// PrefixIPv4 and PrefixIPv6 are the shortest prefixes that a rule may name as client.
	PrefixIPv4 int `hcl:"prefix_ipv4,optional" default:"16" min:"8" max:"32"`
	PrefixIPv6 int `hcl:"prefix_ipv6,optional" default:"48" min:"32" max:"128"`
	// Timeout bounds one run of exportfs.
	Timeout time.Duration `hcl:"timeout,optional" default:"30s" min:"1s" max:"5m"`
}

// Enrolment makes this agent the authority that gives certificates to new servers. It needs a listener "enrol".
type Enrolment struct {
	// CACertFile and CAKeyFile are the internal CA. Only the user of this process should be able to read the key.
	CACertFile string `hcl:"ca_cert_file" conf:"path" example:"/etc/shoal/ca/ca.crt"`
	CAKeyFile  string `hcl:"ca_key_file" conf:"path" example:"/etc/shoal/ca/ca.key"`
	// Directory is the master, and the identity of shoalRole enrol.
	Directory conf.Directory `hcl:"directory,block"`
	// Advertise are the directory servers that enrolled servers are told.
	Advertise []string `hcl:"advertise" conf:"ldapuri" example:"ldaps://vault1.example.net:636"`
	// Validity is the life of certificates. Servers renew when a third of it is left.
	Validity time.Duration `hcl:"validity,optional" default:"2160h" min:"1m" max:"87600h"`
	// AnsweredFile remembers, in hashes, who was answered: a server that did not get the answer asks again with the same
	// token and key. Without it a restart of the agent in between forgets.
	AnsweredFile string `hcl:"answered_file,optional" conf:"path" default:""`
}

// Common gives the shared blocks to the kit.
func (c *Config) Common() kit.Common {
	return kit.Common{Server: &c.Server, Identity: &c.Identity, Management: c.Management, Control: &c.Control, Log: &c.Log, Drain: &c.Drain}
}

// Validate checks what needs several attributes.
func (c *Config) Validate() error {
	if c.HAProxy == nil && c.Exports == nil && c.Enrolment == nil {
		return conf.Invalid("", "the file has none of the blocks haproxy, exports, enrolment: the agent would have nothing to do")
	}
	wanted := 0
	if c.Enrolment != nil {
		wanted = 1
		if len(c.Enrolment.Advertise) == 0 {
			return conf.Invalid("enrolment.advertise", "must name at least one directory server")
		}
	}
	for _, l := range c.Listeners {
		switch {
		case l.Name != "enrol":
			return conf.Invalid("listener."+l.Name+".address", "the only listener of the agent is \"enrol\"; the API is at control")
		case c.Enrolment == nil:
			return conf.Invalid("listener.enrol.address", "needs a block enrolment")
		}
	}
	if len(c.Listeners) != wanted {
		return conf.Invalid("", "a block enrolment needs one listener \"enrol\": write listener \"enrol\" { address = \"[::]:7443\" }")
	}
	if c.Exports != nil {
		for name, owner := range map[string]string{"exports.mail_owner": c.Exports.MailOwner, "exports.queue_owner": c.Exports.QueueOwner} {
			if _, _, err := parseOwner(owner); err != nil {
				return conf.Invalid(name, "%w", err)
			}
		}
	}
	return nil
}
