package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// The grants of a policy never overlap, and decide each address as the first rule that names it does.
func TestGrantsKeepTheOrderOfTheRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		p := &Policy{Name: "p", Rules: map[string]*Rule{}}
		for i := range 1 + rnd.IntN(6) {
			r := &Rule{Index: i + 1, Access: accesses[rnd.IntN(3)], Squash: "root", Security: []string{"sys"}}
			for range 1 + rnd.IntN(3) {
				bits := 24 + rnd.IntN(9)
				a := netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(256))})
				r.Clients = append(r.Clients, netip.PrefixFrom(a, bits).Masked().String())
			}
			p.Rules[ruleKey(r.Index)] = r
		}
		grants, err := p.grants()
		if err != nil {
			t.Fatal(err)
		}
		for last := range 256 {
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(last)})
			want := ""
			for _, r := range p.ordered() {
				for _, c := range r.Clients {
					if want == "" && netip.MustParsePrefix(c).Contains(a) {
						want = fmt.Sprint(r.Index, r.Access)
					}
				}
			}
			if strings.HasSuffix(want, "none") {
				want = ""
			}
			got := ""
			for _, g := range grants {
				if g.client.Contains(a) {
					if got != "" {
						t.Fatalf("%s is in two grants", a)
					}
					got = fmt.Sprint(g.rule.Index, g.rule.Access)
				}
			}
			if got != want {
				t.Fatalf("%s: %q, wanted %q of %+v", a, got, want, p.ordered())
			}
		}
	}
}

// What HAProxy is given holds names and addresses that were checked, and nothing else of the request.
func FuzzMember(f *testing.F) {
	f.Add("box1", "192.0.2.1:143", "ready")
	f.Add("box1", "[2001:db8::1]:143", "drain")
	f.Add("box1\nserver x", "192.0.2.1:143 backup", "maint")
	f.Fuzz(func(t *testing.T, name, address, state string) {
		m := &Member{Name: name, Address: address, State: state}
		if m.check() != nil {
			return
		}
		text := render(map[string]*Pool{"p": {Name: "p", Check: "tcp", Balance: "source", Bind: []string{"[::1]:1"}, Members: map[string]*Member{name: m}}})
		lines := 0
		for _, l := range strings.Split(text, "\n") {
			if strings.HasPrefix(strings.TrimSpace(l), "server ") {
				lines++
			}
		}
		if lines != 1 || strings.ContainsAny(name+m.Address, " \t\n#\\\"'$") {
			t.Errorf("%q %q gave\n%s", name, address, text)
		}
	})
}

func FuzzClient(f *testing.F) {
	for _, s := range []string{"10.0.0.0/16", "2001:db8::/48", "::ffff:10.0.0.1", "*", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := &Rule{Index: 1, Clients: []string{s}}
		if r.check(16, 48) != nil {
			return
		}
		p, err := netip.ParsePrefix(r.Clients[0])
		if err != nil || p.Bits() < 16 || strings.ContainsAny(r.Clients[0], " (*\n") {
			t.Errorf("%q was taken as %q", s, r.Clients[0])
		}
	})
}
