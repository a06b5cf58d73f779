package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Policy says who may use a volume and how: rules in the order of their numbers, of which the first that names the
// client counts. A client that no rule names is refused.
type Policy struct {
	Name        string           `json:"name"`
	Description string           `json:"description"`
	Rules       map[string]*Rule `json:"rules,omitempty"` // by index; read only in requests
}

// Rule is one rule of a policy.
type Rule struct {
	Index    int      `json:"index"`    // 1 to 9999
	Clients  []string `json:"clients"`  // addresses and networks (CIDR)
	Access   string   `json:"access"`   // rw, ro or none
	Security []string `json:"security"` // sys, krb5, krb5i, krb5p: any of them
	Squash   string   `json:"squash"`   // root: nobody for root; all: nobody for everybody
}

var (
	accesses   = []string{"rw", "ro", "none"}
	securities = []string{"sys", "krb5", "krb5i", "krb5p"}
	squashes   = []string{"root", "all"}
)

const (
	maxIndex   = 9999
	maxClients = 256
	maxRules   = 64
)

// check sets what may be left out and refuses what cannot be, or would open a volume to the world.
func (r *Rule) check(prefix4, prefix6 int) error {
	r.Access, r.Squash = orElse(r.Access, "rw"), orElse(r.Squash, "root")
	if len(r.Security) == 0 {
		r.Security = []string{"sys"}
	}
	switch {
	case r.Index < 1 || r.Index > maxIndex:
		return badRequest("rule: index must be from 1 to %d", maxIndex)
	case !slices.Contains(accesses, r.Access):
		return badRequest("rule %d: access %q: it is rw, ro or none", r.Index, r.Access)
	case r.Squash == "none":
		return badRequest("rule %d: squash \"none\" would let root of a client do everything on the volume: it is root or all", r.Index)
	case !slices.Contains(squashes, r.Squash):
		return badRequest("rule %d: squash %q: it is root or all", r.Index, r.Squash)
	case len(r.Clients) == 0 || len(r.Clients) > maxClients:
		return badRequest("rule %d: it needs 1 to %d clients", r.Index, maxClients)
	}
	for _, s := range r.Security {
		if !slices.Contains(securities, s) {
			return badRequest("rule %d: security %q: it is one of %s", r.Index, s, strings.Join(securities, ", "))
		}
	}
	for i, c := range r.Clients {
		p, err := parseClient(c)
		if err != nil {
			return badRequest("rule %d: %w", r.Index, err)
		}
		shortest := prefix4
		if p.Addr().Is6() {
			shortest = prefix6
		}
		if r.Access != "none" && p.Bits() < shortest {
			return badRequest("rule %d: client %s would open the volume to the world: networks are at least /%d here", r.Index, c, shortest)
		}
		r.Clients[i] = p.String()
	}
	return nil
}

// parseClient reads an address or a network. Names, wildcards and netgroups are refused: whoever answers for DNS must not
// decide who reads mail.
func parseClient(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("client %q is neither an address nor a network such as 10.1.2.0/24 or 2001:db8::/64", s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("client %q has bits beyond its prefix: write %s", s, p.Masked())
	}
	return p, nil
}

// ordered gives the rules by index.
func (p *Policy) ordered() []*Rule {
	all := make([]*Rule, 0, len(p.Rules))
	for _, r := range p.Rules {
		all = append(all, r)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Index < all[j].Index })
	return all
}

// grant is one client of one rule as exportfs is told.
type grant struct {
	client netip.Prefix
	rule   *Rule
}

// maxGrants bounds what one policy comes to.
const maxGrants = 4096

// grants takes from each rule what an earlier one has decided, so that no two overlap and the order holds whatever
// order exportfs and the kernel look in.
func (p *Policy) grants() ([]grant, error) {
	var decided []netip.Prefix
	var all []grant
	for _, r := range p.ordered() {
		var mine []netip.Prefix
		for _, c := range r.Clients {
			client, err := parseClient(c)
			if err != nil {
				return nil, err
			}
			rest := []netip.Prefix{client}
			for _, d := range append(decided, mine...) {
				var next []netip.Prefix
				for _, x := range rest {
					next = append(next, minus(x, d)...)
				}
				if rest = next; len(rest) > maxGrants {
					return nil, conflict("policy %s: its rules overlap in too many pieces: name fewer networks", p.Name)
				}
			}
			mine = append(mine, rest...)
		}
		decided = append(decided, mine...)
		if r.Access == "none" {
			continue
		}
		for _, c := range mine {
			all = append(all, grant{c, r})
		}
		if len(all) > maxGrants {
			return nil, conflict("policy %s: it comes to more than %d networks: name fewer", p.Name, maxGrants)
		}
	}
	return all, nil
}

// minus is a without b, as prefixes.
func minus(a, b netip.Prefix) []netip.Prefix {
	switch {
	case !a.Overlaps(b):
		return []netip.Prefix{a}
	case b.Bits() <= a.Bits(): // b holds all of a
		return nil
	}
	low := netip.PrefixFrom(a.Addr(), a.Bits()+1)
	high := netip.PrefixFrom(flip(a.Addr(), a.Bits()), a.Bits()+1)
	return append(minus(low, b), minus(high, b)...)
}

// flip sets the bit after the first n of an address whose bits from there on are 0.
func flip(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	b[n/8] |= 0x80 >> (n % 8)
	out, _ := netip.AddrFromSlice(b)
	return out
}

// options of a grant for exportfs. fsid is the same on every start, so that clients' handles stay good.
func (g grant) options(fsid string) string {
	squash := "root_squash"
	if g.rule.Squash == "all" {
		squash = "all_squash"
	}
	return strings.Join([]string{g.rule.Access, "sync", "no_subtree_check", "secure", squash,
		"sec=" + strings.Join(g.rule.Security, ":"), "fsid=" + fsid}, ",")
}

func parseOwner(s string) (uid, gid int, err error) {
	u, g, ok := strings.Cut(s, ":")
	uid, errU := strconv.Atoi(u)
	gid, errG := strconv.Atoi(g)
	if !ok || errU != nil || errG != nil || uid < 0 || gid < 0 {
		return 0, 0, fmt.Errorf("%q is not uid:gid in numbers", s)
	}
	return uid, gid, nil
}
