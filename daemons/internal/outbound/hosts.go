package outbound

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"shoal/daemons/internal/mailaddr"
)

// maxTries bounds the addresses tried for one message, maxHosts the exchangers looked at.
const (
	maxTries = 8
	maxHosts = 32
)

// host is one mail exchanger.
type host struct {
	name    string // A-labels, without the last dot; an address without brackets for a literal
	literal netip.Addr
	fixed   string // smart host: "host:port", left to the dialer
}

// hosts gives the exchangers of a domain in the order in which to try them.
func (c *Client) hosts(ctx context.Context, domain string) ([]host, *Error) {
	if c.s.SmartHost != "" {
		name, _, _ := net.SplitHostPort(c.s.SmartHost)
		return []host{{name: name, fixed: c.s.SmartHost}}, nil
	}
	if inner, ok := strings.CutPrefix(domain, "["); ok {
		inner = strings.TrimSuffix(inner, "]")
		if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
			inner = inner[5:]
		}
		ip, err := netip.ParseAddr(inner)
		if err != nil {
			return nil, own(550, "5.1.2", "%s is no address that can be connected to", domain)
		}
		return []host{{name: ip.String(), literal: ip.Unmap()}}, nil
	}
	key := mailaddr.DomainKey(domain)
	if key == "" || len(key) > mailaddr.MaxDomain {
		return nil, own(550, "5.1.2", "%q is no domain", domain)
	}
	records, err := c.o.Resolver.LookupMX(ctx, key+".")
	if err != nil && len(records) == 0 {
		if !notFound(err) {
			return nil, own(451, "4.4.3", "The mail exchangers of %s cannot be looked up: %v", domain, err)
		}
		// RFC 5321 §5.1: without MX records the domain is its own exchanger. Whether it exists at all shows with its addresses.
		if c.names[key] {
			return nil, loops(domain)
		}
		return []host{{name: key}}, nil
	}
	if len(records) == 0 {
		return []host{{name: key}}, nil
	}
	if len(records) == 1 && strings.Trim(records[0].Host, ".") == "" {
		return nil, own(556, "5.1.10", "%s says that it takes no mail at all (null MX)", domain)
	}
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	slices.SortStableFunc(records, func(a, b *net.MX) int { return cmp.Compare(a.Pref, b.Pref) })
	var list []host
	for _, mx := range records[:min(len(records), maxHosts)] {
		name := mailaddr.DomainKey(strings.TrimSuffix(mx.Host, "."))
		if name == "" {
			continue
		}
		list = append(list, host{name: name})
		if c.names[name] {
			// RFC 5321 §5.1: ourselves; what is not preferred to us is no use.
			pref := mx.Pref
			list = list[:0]
			for _, r := range records {
				if r.Pref < pref {
					list = append(list, host{name: mailaddr.DomainKey(strings.TrimSuffix(r.Host, "."))})
				}
			}
			if len(list) == 0 {
				return nil, loops(domain)
			}
			break
		}
	}
	if len(list) == 0 {
		return nil, own(451, "4.4.4", "%s has no usable mail exchanger", domain)
	}
	return list, nil
}

func loops(domain string) *Error {
	return own(554, "5.4.6", "Mail for %s comes back to this server, which is not set up to take it", domain)
}

func notFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// addresses gives "ip:port" of a host, IPv6 and IPv4 in turn, in random order within each. loop says that one of them
// is this server.
func (c *Client) addresses(ctx context.Context, h host, domain string) (list []string, loop bool, failed *Error) {
	if h.fixed != "" {
		return []string{h.fixed}, false, nil
	}
	found := []netip.Addr{h.literal}
	if !h.literal.IsValid() {
		var err error
		found, err = c.o.Resolver.LookupNetIP(ctx, "ip", h.name+".")
		switch {
		case notFound(err) || err == nil && len(found) == 0:
			return nil, false, own(550, "5.1.2", "%s has no address (of %s)", h.name, domain)
		case err != nil:
			return nil, false, own(451, "4.4.3", "The address of %s cannot be looked up: %v", h.name, err)
		}
	}
	var v6, v4 []netip.Addr
	for _, ip := range found {
		ip = ip.Unmap()
		switch {
		case c.addrs[ip]:
			return nil, true, nil
		case ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() && !c.o.AllowLoopback:
			failed = own(554, "5.4.4", "%s has the address %s, which is nobody's", h.name, ip)
		case ip.Is6():
			v6 = append(v6, ip)
		default:
			v4 = append(v4, ip)
		}
	}
	if len(v6)+len(v4) == 0 {
		return nil, false, failed
	}
	for _, l := range [][]netip.Addr{v6, v4} {
		rand.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
	}
	for i := range max(len(v6), len(v4)) {
		for _, l := range [][]netip.Addr{v6, v4} {
			if i < len(l) {
				list = append(list, net.JoinHostPort(l[i].String(), strconv.Itoa(c.o.Port)))
			}
		}
	}
	return list, false, nil
}
