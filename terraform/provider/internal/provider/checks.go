package provider

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
)

// rule is a validator of one string.
type rule struct {
	says  string
	check func(string) error
}

func (r rule) Description(context.Context) string         { return r.says }
func (r rule) MarkdownDescription(context.Context) string { return r.says }
func (r rule) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if err := r.check(req.ConfigValue.ValueString()); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "not "+r.says, fmt.Sprintf("%q: %v", req.ConfigValue.ValueString(), err))
	}
}

func matching(pattern, says string) []validator.String {
	return []validator.String{stringvalidator.RegexMatches(regexp.MustCompile(pattern), says)}
}

var (
	serverName = matching(`^[a-z0-9][a-z0-9-]{0,14}$`, "must be 1 to 15 of a-z, 0-9 and '-', beginning with a letter or digit")
	thingName  = matching(`^[a-z0-9][a-z0-9-]{0,30}$`, "must be 1 to 31 of a-z, 0-9 and '-', beginning with a letter or digit")
	domainName = matching(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`, "must be a domain name in lower case, such as example.com (xn-- for others than ASCII)")
	uuidValue  = matching(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`, "must be a UUID in lower case")
	hostPort   = matching(`^(\[[0-9a-fA-F:.]+\]|[^\[\]:/ ]+):[0-9]{1,5}$`, "must be host:port, an IPv6 address in brackets")
)

// addressPort is an address, not a name, with a port.
var addressPort = []validator.String{rule{"an address and a port", func(s string) error {
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return fmt.Errorf("write an address and a port, such as 192.0.2.1:143 or [2001:db8::1]:143")
	}
	if plain := netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String(); plain != s {
		return fmt.Errorf("write it as %s", plain)
	}
	return nil
}}}

// Shortest prefixes that a rule may let in: those of an agent whose configuration says nothing else.
const (
	shortest4 = 16
	shortest6 = 48
)

// nfsClient is an address or network that does not open a volume to the world.
var nfsClient = rule{"a client that may be let in", func(s string) error {
	p, err := netip.ParsePrefix(s)
	if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return fmt.Errorf("write an address or a network, such as 10.1.2.0/24 or 2001:db8::/64: names and wildcards are not taken")
	}
	if p != p.Masked() {
		return fmt.Errorf("it has bits beyond its prefix: write %s", p.Masked())
	}
	if p.String() != s && p.Addr().String() != s {
		return fmt.Errorf("write it as %s", p)
	}
	least := shortest4
	if p.Addr().Is6() {
		least = shortest6
	}
	if p.Bits() < least {
		return fmt.Errorf("it would open the volume to the world: networks are at least /%d", least)
	}
	return nil
}}

func replaced() []planmodifier.String {
	return []planmodifier.String{stringplanmodifier.RequiresReplace()}
}

func kept() []planmodifier.String {
	return []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
}
