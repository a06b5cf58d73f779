package dirclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
)

// Client answers questions about the directory. Its methods may run at once.
type Client struct {
	opt       Options
	log       *slog.Logger
	metrics   *metrics
	endpoints []*endpoint

	search *pool
	bind   *pool

	accounts *cache[*Account]
	aliases  *cache[*Alias]
	ids      *cache[*Account]
	apps     *cache[*AppPassword]
	domains  *cache[*Domain]
	servers  *cache[[]Server]
	volumes  *cache[[]Volume]
	groups   *cache[[]string]

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex
	closed bool
	probes sync.WaitGroup
}

// New checks the options and registers the metrics. It waits for no connection: a directory that is away at start
// is found out by the first call, or by Ping.
func New(o Options) (*Client, error) {
	setDefaults(&o)
	if len(o.URIs) == 0 {
		return nil, errors.New("dirclient: no directory URI")
	}
	if o.TLS == nil {
		return nil, errors.New("dirclient: no TLS configuration: the directory is spoken to over TLS only")
	}
	if o.BindDN == "" || o.PasswordFile == "" {
		return nil, errors.New("dirclient: no bind DN or no password file")
	}
	for what, dn := range map[string]string{"bind DN": o.BindDN, "suffix": o.Suffix} {
		if _, err := ldap.ParseDN(dn); err != nil {
			return nil, fmt.Errorf("dirclient: %s %q: %w", what, dn, err)
		}
	}
	c := &Client{opt: o, log: o.Log, metrics: newMetrics()}
	seen := map[string]bool{}
	for _, s := range o.URIs {
		ep, err := parseURI(s)
		if err != nil {
			return nil, err
		}
		if seen[ep.uri] {
			return nil, fmt.Errorf("directory URI %q is listed twice", s)
		}
		seen[ep.uri] = true
		c.endpoints = append(c.endpoints, ep)
	}
	c.search = newPool(c, "search", true, o.MaxConnections)
	c.bind = newPool(c, "bind", false, o.MaxConnections)
	c.accounts = newCache[*Account]("account", o, c.metrics, o.CacheSize)
	c.aliases = newCache[*Alias]("alias", o, c.metrics, o.CacheSize)
	c.ids = newCache[*Account]("id", o, c.metrics, o.CacheSize)
	c.apps = newCache[*AppPassword]("app_password", o, c.metrics, o.CacheSize)
	c.domains = newCache[*Domain]("domain", o, c.metrics, o.CacheSize)
	c.servers = newCache[[]Server]("servers", o, c.metrics, 32)
	c.volumes = newCache[[]Volume]("volumes", o, c.metrics, 1)
	c.groups = newCache[[]string]("groups", o, c.metrics, o.CacheSize)
	if err := c.metrics.register(o.Metrics, c.cacheEntries); err != nil {
		return nil, fmt.Errorf("dirclient: metrics: %w", err)
	}
	for _, ep := range c.endpoints {
		c.metrics.up.WithLabelValues(ep.uri).Set(1)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if o.Follow {
		c.probes.Go(c.follow)
	}
	return c, nil
}

func setDefaults(o *Options) {
	var d conf.Directory
	conf.SetDefaults(&d)
	of := optionsOf(d)
	def(&o.Suffix, of.Suffix)
	def(&o.DialTimeout, of.DialTimeout)
	def(&o.Timeout, of.Timeout)
	def(&o.MaxConnections, of.MaxConnections)
	def(&o.CacheSize, of.CacheSize)
	def(&o.CacheTTL, of.CacheTTL)
	def(&o.NegativeTTL, of.NegativeTTL)
	def(&o.StaleFor, of.StaleFor)
	def(&o.AttemptTimeout, defaultAttemptTimeout)
	def(&o.BindTimeout, defaultBindTimeout)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Close ends the probes and the idle connections. Calls that are on their way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.search.close()
	c.bind.close()
	c.probes.Wait()
	return nil
}

// Suffix is the DN below which everything of this service lies.
func (c *Client) Suffix() string { return c.opt.Suffix }

// Flush forgets all cached answers.
func (c *Client) Flush() {
	c.accounts.flush()
	c.aliases.flush()
	c.ids.flush()
	c.apps.flush()
	c.domains.flush()
	c.servers.flush()
	c.volumes.flush()
	c.groups.flush()
}

func (c *Client) cacheEntries() float64 {
	return float64(c.accounts.len() + c.aliases.len() + c.ids.len() + c.apps.len() + c.domains.len() + c.servers.len() + c.volumes.len() + c.groups.len())
}

// Ping asks a directory server for the suffix entry, past the cache: nil means that lookups work. It takes part
// in finding out which servers are up.
func (c *Client) Ping(ctx context.Context) error {
	if err := c.allDown(); err != nil {
		return err
	}
	entries, err := c.find(ctx, ldap.NewSearchRequest(c.opt.Suffix, ldap.ScopeBaseObject, ldap.NeverDerefAliases,
		1, 0, false, "(objectClass=*)", []string{"1.1"}, nil))
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%w: entry %s is missing or not readable for %s", ErrMalformed, c.opt.Suffix, c.opt.BindDN)
	}
	return nil
}

// Bind checks a password: nil, ErrInvalidCredentials, or ErrUnavailable. An empty password is never right
// (RFC 4513 §5.1.2: the directory would take it for an anonymous bind).
func (c *Client) Bind(ctx context.Context, dn, password string) (err error) {
	start := time.Now()
	defer func() { c.metrics.done("bind", start, err) }()
	if password == "" || dn == "" {
		return fmt.Errorf("%w: empty name or password", ErrInvalidCredentials)
	}
	ctx, cancel := context.WithTimeout(ctx, c.opt.BindTimeout)
	defer cancel()
	err = c.bind.call(ctx, func(l *ldap.Conn) error { return l.Bind(dn, password) })
	if err = resultError("bind as "+dn, err); errors.Is(err, ErrNoSuchEntry) || errors.Is(err, ErrInvalidName) {
		// Servers differ in what they say of a name that is not there; nobody needs to know.
		err = fmt.Errorf("%w: bind as %s", ErrInvalidCredentials, dn)
	}
	return err
}

// find runs a search and returns its entries. A missing base is ErrNoSuchEntry.
func (c *Client) find(ctx context.Context, req *ldap.SearchRequest) (entries []*ldap.Entry, err error) {
	start := time.Now()
	defer func() { c.metrics.done("search", start, err) }()
	ctx, cancel := context.WithTimeout(ctx, c.opt.Timeout)
	defer cancel()
	err = c.search.call(ctx, func(l *ldap.Conn) error {
		res, err := l.Search(req)
		if err == nil || ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
			entries, err = res.Entries, nil
		}
		return err
	})
	return entries, resultError("search below "+req.BaseDN, err)
}

// lower is the form in which addresses and names are compared.
func lower(s string) string { return strings.ToLower(strings.TrimSpace(s)) }
