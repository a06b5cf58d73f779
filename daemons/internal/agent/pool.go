package agent

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Pool is one service at the balancer: where it listens, and how it shares connections among its members.
type Pool struct {
	Name    string   `json:"name"`
	Bind    []string `json:"bind"`    // address:port each; IPv6 in brackets
	Check   string   `json:"check"`   // how members are checked: tcp smtp lmtp imap pop3 ldap
	Balance string   `json:"balance"` // leastconn, roundrobin or source
	Proxy   bool     `json:"proxy_protocol"`
	// IdleSeconds is how long either side may be silent.
	IdleSeconds int `json:"idle_seconds"`

	Members map[string]*Member `json:"members,omitempty"` // by name; read only in requests
}

// Member is one server of a pool.
type Member struct {
	Name    string `json:"name"`
	Address string `json:"address"` // host:port, the host an address
	// CheckPort is where it is checked, when that is not the port of Address; 0: there.
	CheckPort int    `json:"check_port"`
	Weight    int    `json:"weight"` // 1 to 256
	Backup    bool   `json:"backup"` // gets connections only when no other is up
	State     string `json:"state"`  // ready, drain, maint

	// Of HAProxy, in answers only.
	Status   string `json:"status,omitempty"` // UP, DOWN, DRAIN, MAINT ...; absent: HAProxy does not know it
	Sessions int    `json:"sessions,omitempty"`
	// Drift says what HAProxy has otherwise than it was asked for.
	Drift string `json:"drift,omitempty"`
}

// Checks in the language of HAProxy, without and with the PROXY header. Each speaks the protocol until the member has
// shown that it serves. There is no regular expression among them, nor one of HAProxy's own checks that are made of some
// (smtpchk, ldap-check): it compiles them into memory that it writes and runs, which the agent's unit forbids, and a
// configuration is checked from within that.
var checks = map[string][]string{
	"tcp": nil,
	"smtp": {"option tcp-check", "tcp-check connect", "tcp-check expect string 220",
		`tcp-check send EHLO\ lb.shoal\r\n`, "tcp-check expect string 250", `tcp-check send QUIT\r\n`, "tcp-check expect string 221"},
	// An anonymous bind of version 3, the code of whose answer is success; then unbind.
	"ldap": {"option tcp-check", "tcp-check connect", "tcp-check send-binary 300c020101600702010304008000",
		"tcp-check expect binary 0a0100", "tcp-check send-binary 30050201024200"},
	"imap": {"option tcp-check", "tcp-check connect", `tcp-check expect string *\ OK`,
		`tcp-check send A1\ LOGOUT\r\n`, `tcp-check expect string A1\ OK`},
	"pop3": {"option tcp-check", "tcp-check connect", "tcp-check expect string +OK",
		`tcp-check send QUIT\r\n`, "tcp-check expect string +OK"},
	"managesieve": {"option tcp-check", "tcp-check connect", `tcp-check expect string OK`,
		`tcp-check send LOGOUT\r\n`, `tcp-check expect string OK`},
	"lmtp": {"option tcp-check", "tcp-check connect", "tcp-check expect string 220",
		`tcp-check send LHLO\ lb.shoal\r\n`, "tcp-check expect string 250", `tcp-check send QUIT\r\n`, "tcp-check expect string 221"},
}

var (
	balances = []string{"leastconn", "roundrobin", "source"}
	states   = []string{"ready", "drain", "maint"}
)

const (
	maxIdle    = 24 * 60 * 60
	maxBinds   = 16
	maxPools   = 64
	maxMembers = 1024 // of one pool
	backend    = "be_"
)

// check sets what may be left out and refuses what cannot be.
func (p *Pool) check() error {
	if err := checkName("pool", p.Name); err != nil {
		return err
	}
	p.Check, p.Balance = orElse(p.Check, "tcp"), orElse(p.Balance, "leastconn")
	if p.IdleSeconds == 0 {
		p.IdleSeconds = int((35 * time.Minute).Seconds())
	}
	switch {
	case len(p.Members) > 0:
		return badRequest("pool %s: members are put one by one", p.Name)
	case len(p.Bind) == 0 || len(p.Bind) > maxBinds:
		return badRequest("pool %s: it needs 1 to %d addresses in bind", p.Name, maxBinds)
	case p.IdleSeconds < 1 || p.IdleSeconds > maxIdle:
		return badRequest("pool %s: idle_seconds must be from 1 to %d", p.Name, maxIdle)
	case !slices.Contains(balances, p.Balance):
		return badRequest("pool %s: balance %q: it is one of %s", p.Name, p.Balance, strings.Join(balances, ", "))
	}
	if _, ok := checks[p.Check]; !ok {
		return badRequest("pool %s: check %q: it is one of tcp, smtp, lmtp, imap, pop3, ldap", p.Name, p.Check)
	}
	for i, b := range p.Bind {
		ap, err := parseAddress(b)
		if err != nil {
			return badRequest("pool %s: bind: %w", p.Name, err)
		}
		p.Bind[i] = ap.String()
	}
	return nil
}

// check is the same for a member.
func (m *Member) check() error {
	if err := checkName("member", m.Name); err != nil {
		return err
	}
	m.State = orElse(m.State, "ready")
	if m.Weight == 0 {
		m.Weight = 100
	}
	m.Status, m.Sessions, m.Drift = "", 0, ""
	ap, err := parseAddress(m.Address)
	switch {
	case err != nil:
		return badRequest("member %s: %w", m.Name, err)
	case ap.Addr().IsUnspecified():
		return badRequest("member %s: %s is no address of a server", m.Name, ap.Addr())
	case m.Weight < 1 || m.Weight > 256:
		return badRequest("member %s: weight must be from 1 to 256", m.Name)
	case m.CheckPort < 0 || m.CheckPort > 65535:
		return badRequest("member %s: check_port must be from 1 to 65535", m.Name)
	case !slices.Contains(states, m.State):
		return badRequest("member %s: state %q: it is one of %s", m.Name, m.State, strings.Join(states, ", "))
	}
	m.Address = ap.String()
	return nil
}

func parseAddress(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return ap, fmt.Errorf("%q is not address:port (an IPv6 address stands in brackets)", s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// parameters are what follows name and address of a server, in the file and on the runtime socket alike.
func (p *Pool) parameters(m *Member) string {
	s := fmt.Sprintf("weight %d check inter 1s fall 2 rise 1", m.Weight)
	if m.CheckPort != 0 {
		s += " port " + strconv.Itoa(m.CheckPort)
	}
	if p.Proxy {
		s += " send-proxy-v2 check-send-proxy"
	}
	if m.Backup {
		s += " backup"
	}
	return s
}

// render gives HAProxy's file of all pools. Names and addresses were checked, so nothing in them has a meaning there.
func render(pools map[string]*Pool) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by shoal-agent: changes are lost. Ask for others over its API.")
	for _, name := range sortedKeys(pools) {
		p := pools[name]
		line("\nfrontend %s", p.Name)
		for _, a := range p.Bind {
			if ap := netip.MustParseAddrPort(a); ap.Addr().Is6() {
				line("\tbind %s v6only", a)
			} else {
				line("\tbind %s", a)
			}
		}
		line("\tmode tcp\n\ttimeout client %ds\n\tdefault_backend %s%s", p.IdleSeconds, backend, p.Name)
		line("backend %s%s\n\tmode tcp\n\tbalance %s\n\ttimeout server %ds", backend, p.Name, p.Balance, p.IdleSeconds)
		for _, c := range checks[p.Check] {
			if p.Proxy && c == "tcp-check connect" {
				c += " send-proxy"
			}
			line("\t%s", c)
		}
		for _, member := range sortedKeys(p.Members) {
			m := p.Members[member]
			state := ""
			if m.State == "maint" {
				state = " disabled"
			}
			line("\tserver %s %s %s%s", m.Name, m.Address, p.parameters(m), state)
		}
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	sort.Strings(all)
	return all
}

// sameAddress compares what HAProxy tells with what was asked for.
func sameAddress(a, b string) bool {
	x, errX := netip.ParseAddrPort(a)
	y, errY := netip.ParseAddrPort(b)
	if errX != nil || errY != nil {
		return a == b
	}
	return x.Addr().Unmap() == y.Addr().Unmap() && x.Port() == y.Port()
}

// joinHAProxy makes an address of HAProxy's columns, which write IPv6 without brackets.
func joinHAProxy(host, port string) string { return net.JoinHostPort(host, port) }
