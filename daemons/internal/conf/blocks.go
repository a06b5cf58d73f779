package conf

import (
	"net/netip"
	"time"
)

// Server says who this daemon is.
type Server struct {
	// Name is the name of the server: in certificates, in the directory and in the commit records of
	// the store. It never changes and never moves to another server.
	Name string `hcl:"name" conf:"name" example:"box1"`
	// User is the system account (user or user:group) that a daemon started as root changes to, after
	// it has bound its listeners.
	User string `hcl:"user,optional" conf:"account"`
}

// Identity names the files of the certificate by which the daemon and its peers know each other.
type Identity struct {
	CertFile string `hcl:"cert_file" conf:"path" example:"/etc/shoal/box1.crt"`
	KeyFile  string `hcl:"key_file" conf:"path" example:"/etc/shoal/box1.key"`
	CAFile   string `hcl:"ca_file" conf:"path" example:"/etc/shoal/ca.crt"`
}

// Directory says where the directory is and how to log in there.
type Directory struct {
	URIs         []string `hcl:"uris" conf:"ldapuri" example:"ldap://127.0.0.1:389"`
	BindDN       string   `hcl:"bind_dn,optional" conf:"dn"`
	PasswordFile string   `hcl:"password_file,optional" conf:"secret"`
	// CAFile verifies the directory's certificate where that is not of the internal CA.
	CAFile string `hcl:"ca_file,optional" conf:"path"`
	Suffix string `hcl:"suffix,optional" conf:"dn" default:"o=shoal"`
	// ConnectTimeout bounds a connection attempt with its TLS handshake, RequestTimeout one operation.
	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" default:"3s" min:"10ms" max:"5m"`
	RequestTimeout time.Duration `hcl:"request_timeout,optional" default:"10s" min:"10ms" max:"5m"`
	// Connections bounds the connections kept to the directory.
	Connections int `hcl:"connections,optional" default:"4" min:"1" max:"1000"`
	// CacheLife is how long an answer may be used again, CacheNegativeLife the same for "there is no
	// such", CacheStaleLife how long beyond CacheLife an answer still serves while no directory server
	// answers. CacheEntries is how many are kept.
	CacheLife         time.Duration `hcl:"cache_life,optional" default:"30s" max:"1h"`
	CacheNegativeLife time.Duration `hcl:"cache_negative_life,optional" default:"5s" max:"1h"`
	CacheStaleLife    time.Duration `hcl:"cache_stale_life,optional" default:"1h" max:"168h"`
	CacheEntries      int           `hcl:"cache_entries,optional" default:"100000" min:"1"`
}

// Validate checks what needs several attributes.
func (d *Directory) Validate() error {
	switch {
	case len(d.URIs) == 0:
		return Invalid("uris", "must name at least one directory server")
	case d.BindDN != "" && d.PasswordFile == "":
		return Invalid("bind_dn", "needs password_file beside it")
	case d.BindDN == "" && d.PasswordFile != "":
		return Invalid("password_file", "needs bind_dn beside it")
	}
	return nil
}

// Listener is one address that the daemon serves. The label is its name, by which it finds a socket
// handed over by systemd (FileDescriptorName=) and by which metrics and messages call it.
type Listener struct {
	Name    string `hcl:"name,label"`
	Address string `hcl:"address" conf:"listen" example:"127.0.0.1:143"`
	// TLS: the first byte is TLS already ("imaps", "submissions", "ldaps").
	TLS bool `hcl:"tls,optional" default:"false"`
	// ProxyFrom names the balancers. If set, every connection must come from one of them and begin
	// with a PROXY protocol v2 header; if not set, such a header is never parsed.
	ProxyFrom []string `hcl:"proxy_from,optional" conf:"network"`
	// MaxConnections bounds the open connections; more are refused at once.
	MaxConnections int `hcl:"max_connections,optional" default:"10000" min:"1" max:"1000000"`
}

// ProxyNetworks is ProxyFrom parsed.
func (l *Listener) ProxyNetworks() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range l.ProxyFrom {
		p, err := ParseNetwork(s)
		if err != nil {
			return nil, Invalid("proxy_from", "%w", err)
		}
		all = append(all, p)
	}
	return all, nil
}

// Volume is a folder that holds mail, by the name that the directory knows it by.
type Volume struct {
	Name string `hcl:"name,label"`
	Path string `hcl:"path" conf:"path" example:"/srv/shoal/vol01"`
	// ID must be the id in the volume's marker file, so that an empty mount point or the wrong export
	// is noticed.
	ID string `hcl:"id" example:"0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"`
}

// PublicTLS names the certificate shown to clients from outside.
type PublicTLS struct {
	CertFile string `hcl:"cert_file" conf:"path" example:"/etc/shoal/public.crt"`
	KeyFile  string `hcl:"key_file" conf:"path" example:"/etc/shoal/public.key"`
	// ClientCAFile is the CA of users' certificates; with one, users may log in by SASL EXTERNAL where they show one of its certificates.
	ClientCAFile string `hcl:"client_ca_file,optional" conf:"path" example:"/etc/shoal/clients.crt"`
}

// Management is the plain HTTP address for probes and metrics.
type Management struct {
	// Address serves /healthz, /readyz and /metrics, and pprof if it is a loopback address.
	Address string `hcl:"address" conf:"listen" example:"127.0.0.1:9143"`
}

// Control is the HTTPS address for operators' commands; it demands an operator's certificate.
type Control struct {
	Address string `hcl:"address" conf:"listen" example:"127.0.0.1:9144"`
}

// Log says what is logged and how.
type Log struct {
	// Format auto: text on a terminal, the journal's own protocol under systemd, otherwise JSON lines.
	Format string `hcl:"format,optional" default:"auto" oneof:"auto text json journal"`
	Level  string `hcl:"level,optional" conf:"live" default:"info" oneof:"debug info warn error"`
}

// Drain says how the daemon ends.
type Drain struct {
	// Timeout bounds the time that sessions get to end; Delay is how long the daemon already reports
	// "not ready" while it still accepts, so that balancers stop sending.
	Timeout time.Duration `hcl:"timeout,optional" conf:"live" default:"30s" max:"1h"`
	Delay   time.Duration `hcl:"delay,optional" conf:"live" default:"0s" max:"10m"`
}
