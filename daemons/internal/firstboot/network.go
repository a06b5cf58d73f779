package firstboot

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// network is a network-config text of version 2 (netplan's), as far as it is understood: ethernets with addresses, routes
// and name servers. Unknown keys are errors: half a network is worse than none.
type network struct {
	Version   int                 `yaml:"version"`
	Ethernets map[string]ethernet `yaml:"ethernets"`
}

type ethernet struct {
	Match struct {
		MACAddress string `yaml:"macaddress"`
		Name       string `yaml:"name"`
	} `yaml:"match"`
	SetName     string   `yaml:"set-name"`
	DHCP4       bool     `yaml:"dhcp4"`
	DHCP6       bool     `yaml:"dhcp6"`
	AcceptRA    *bool    `yaml:"accept-ra"`
	Addresses   []string `yaml:"addresses"`
	Gateway4    string   `yaml:"gateway4"`
	Gateway6    string   `yaml:"gateway6"`
	MTU         int      `yaml:"mtu"`
	Optional    bool     `yaml:"optional"`
	Nameservers struct {
		Addresses []string `yaml:"addresses"`
		Search    []string `yaml:"search"`
	} `yaml:"nameservers"`
	Routes []struct {
		To     string `yaml:"to"`
		Via    string `yaml:"via"`
		Metric int    `yaml:"metric"`
	} `yaml:"routes"`
}

var macForm = regexp.MustCompile(`^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$`)

// ParseNetwork makes files for systemd-networkd, by name, and the text of resolv.conf out of a network-config text.
// NoCloud allows the whole to be under a key "network".
func ParseNetwork(text []byte) (files map[string]string, resolv string, err error) {
	var outer struct {
		Network yaml.Node `yaml:"network"`
	}
	if err := yaml.Unmarshal(text, &outer); err != nil {
		return nil, "", fmt.Errorf("network-config: %w", err)
	}
	if !outer.Network.IsZero() {
		if text, err = yaml.Marshal(&outer.Network); err != nil {
			return nil, "", fmt.Errorf("network-config: %w", err)
		}
	}
	var n network
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&n); err != nil {
		return nil, "", fmt.Errorf("network-config: %s", seedMistake(err))
	}
	if n.Version != 2 || len(n.Ethernets) == 0 || len(n.Ethernets) > 64 {
		return nil, "", fmt.Errorf("network-config: version %d: write version: 2 and ethernets", n.Version)
	}
	files = map[string]string{}
	var servers, search []string
	names := make([]string, 0, len(n.Ethernets))
	for name := range n.Ethernets {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		e := n.Ethernets[name]
		text, err := e.unit(name)
		if err != nil {
			return nil, "", fmt.Errorf("network-config: ethernets.%s: %w", name, err)
		}
		files[fmt.Sprintf("%02d-seed.network", 10+i)] = text
		servers = append(servers, e.Nameservers.Addresses...)
		search = append(search, e.Nameservers.Search...)
	}
	if len(servers) > 0 {
		resolv = "# Written by first boot: changes are lost.\n"
		for _, s := range servers {
			resolv += "nameserver " + s + "\n"
		}
		if len(search) > 0 {
			resolv += "search " + strings.Join(search, " ") + "\n"
		}
	}
	return files, resolv, nil
}

// unit is the file of systemd.network(5) for one interface.
func (e ethernet) unit(name string) (string, error) {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Written by first boot: changes are lost.\n[Match]")
	switch {
	case e.Match.MACAddress != "":
		if !macForm.MatchString(e.Match.MACAddress) {
			return "", fmt.Errorf("match.macaddress: %q is no address of an interface", e.Match.MACAddress)
		}
		p("MACAddress=%s", e.Match.MACAddress)
	case e.Match.Name != "":
		if !regexp.MustCompile(`^[a-zA-Z0-9._*?-]{1,15}$`).MatchString(e.Match.Name) {
			return "", fmt.Errorf("match.name: %q is no name of an interface", e.Match.Name)
		}
		p("Name=%s", e.Match.Name)
	case ifaceName.MatchString(name):
		p("Name=%s", name)
	default:
		return "", fmt.Errorf("%q is no name of an interface", name)
	}
	if e.SetName != "" {
		return "", fmt.Errorf("set-name: interfaces keep their names here: leave it out")
	}
	p("\n[Link]")
	if e.MTU != 0 {
		if e.MTU < 576 || e.MTU > 65535 {
			return "", fmt.Errorf("mtu: %d: write 576 to 65535", e.MTU)
		}
		p("MTUBytes=%d", e.MTU)
	}
	if e.Optional {
		p("RequiredForOnline=no")
	}
	p("\n[Network]")
	p("DHCP=%s", map[[2]bool]string{{true, true}: "yes", {true, false}: "ipv4", {false, true}: "ipv6", {}: "no"}[[2]bool{e.DHCP4, e.DHCP6}])
	if ra := e.AcceptRA; ra != nil {
		p("IPv6AcceptRA=%t", *ra)
	} else {
		p("IPv6AcceptRA=%t", e.DHCP6)
	}
	for _, a := range e.Addresses {
		if _, err := netip.ParsePrefix(a); err != nil {
			return "", fmt.Errorf("addresses: %q: write address/length", a)
		}
		p("Address=%s", a)
	}
	for _, a := range e.Nameservers.Addresses {
		if _, err := netip.ParseAddr(a); err != nil {
			return "", fmt.Errorf("nameservers.addresses: %q is no address", a)
		}
		p("DNS=%s", a)
	}
	for _, s := range e.Nameservers.Search {
		if !hostName.MatchString(s) {
			return "", fmt.Errorf("nameservers.search: %q is no domain", s)
		}
	}
	for _, g := range []string{e.Gateway4, e.Gateway6} {
		if g == "" {
			continue
		}
		if _, err := netip.ParseAddr(g); err != nil {
			return "", fmt.Errorf("gateway: %q is no address", g)
		}
		p("Gateway=%s", g)
	}
	for _, r := range e.Routes {
		via, err := netip.ParseAddr(r.Via)
		if err != nil {
			return "", fmt.Errorf("routes: via %q is no address", r.Via)
		}
		to := r.To
		if to == "default" {
			to = "0.0.0.0/0"
			if via.Is6() {
				to = "::/0"
			}
		}
		if _, err := netip.ParsePrefix(to); err != nil {
			return "", fmt.Errorf("routes: to %q: write network/length, or default", r.To)
		}
		p("\n[Route]\nDestination=%s\nGateway=%s", to, via)
		if r.Metric > 0 {
			p("Metric=%d", r.Metric)
		}
	}
	return b.String(), nil
}
