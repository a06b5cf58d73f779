package route

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
)

func TestResolve(t *testing.T) {
	forwarding := func(address string, keep bool, to ...string) *dirclient.Account {
		return &dirclient.Account{Address: address, Status: dirclient.StatusActive, Forward: to, ForwardKeep: keep}
	}
	dir := fake{
		accounts: map[string]*dirclient.Account{
			"alice@a.test": account("alice@a.test", dirclient.StatusActive),
			"bob@a.test":   account("bob@a.test", dirclient.StatusActive),
			"kept@a.test":  forwarding("kept@a.test", true, "kept@far.test"),
			"away@a.test":  forwarding("away@a.test", false, "away@far.test", "alice@a.test"),
			"ping@a.test":  forwarding("ping@a.test", false, "pong@a.test"),
			"pong@a.test":  forwarding("pong@a.test", true, "ping@a.test"),
			"self@a.test":  forwarding("self@a.test", false, "self@a.test"),
			"ill@a.test":   account("ill@a.test", dirclient.StatusSuspended),
			"sick@a.test":  nil,
			"odd@a.test":   forwarding("odd@a.test", false, "not an address"),
			"gone@a.test":  {Address: "gone@a.test", Status: dirclient.StatusClosed, Forward: []string{"x@far.test"}},
		},
		aliases: map[string][]string{
			"team@a.test":     {"alice@a.test", "bob+team@a.test", "carol@far.test", "alice@a.test"},
			"all@a.test":      {"team@a.test", "kept@a.test", "all@a.test", "nobody@a.test", "ill@a.test"},
			"circle@a.test":   {"circle2@a.test"},
			"circle2@a.test":  {"circle@a.test"},
			"unsure@a.test":   {"alice@a.test", "sick@a.test"},
			"many@a.test":     nil,
			"s1@a.test":       {"s2@a.test"},
			"postmaster@b.de": {"alice@a.test"},
			"any@b.de":        {"bob@a.test"},
		},
		domains: map[string]*dirclient.Domain{
			"a.test": {Name: "a.test", Status: dirclient.StatusActive},
			"b.de":   {Name: "b.de", Status: dirclient.StatusActive, CatchAll: "any@b.de"},
		},
	}
	for i := range MaxLeaves + 1 {
		dir.aliases["many@a.test"] = append(dir.aliases["many@a.test"], fmt.Sprintf("u%d@far.test", i))
	}
	for i := 2; i < MaxDepth+3; i++ {
		dir.aliases[fmt.Sprintf("s%d@a.test", i)] = []string{fmt.Sprintf("s%d@a.test", i+1)}
	}
	r, err := New(Options{Directory: dir, Settings: Settings{Separators: "+"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		address, want string
		err           error
	}{
		{"alice@a.test", "local:alice@a.test", nil},
		{"team@a.test", "local:alice@a.test local:bob+team@a.test foreign:carol@far.test", nil},
		{"team+x@a.test", "local:alice@a.test local:bob+team@a.test foreign:carol@far.test", nil},
		{"kept@a.test", "local:kept@a.test foreign:kept@far.test", nil},
		{"away@a.test", "foreign:away@far.test local:alice@a.test", nil},
		{"all@a.test", "local:alice@a.test local:bob+team@a.test foreign:carol@far.test local:kept@a.test foreign:kept@far.test unknown:nobody@a.test local:ill@a.test", nil},
		{"ping@a.test", "local:pong@a.test", nil},
		{"gone@a.test", "unknown:gone@a.test", nil},
		{"postmaster@b.de", "local:alice@a.test", nil},
		{"whoever@b.de", "local:bob@a.test", nil},
		{"self@a.test", "", ErrCircle},
		{"circle@a.test", "", ErrCircle},
		{"many@a.test", "", ErrTooMany},
		{"s1@a.test", "", ErrTooMany},
		{"unsure@a.test", "", dirclient.ErrUnavailable},
		{"odd@a.test", "", new(mailaddr.SyntaxError)},
	} {
		a, err := mailaddr.Parse(c.address)
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.Route(context.Background(), a)
		if err != nil {
			t.Fatal(err)
		}
		leaves, err := Resolve(context.Background(), r, a, d)
		var got []string
		for _, l := range leaves {
			got = append(got, l.Decision.Outcome.String()+":"+l.Address.String())
		}
		var syntax *mailaddr.SyntaxError
		_, wantSyntax := c.err.(*mailaddr.SyntaxError)
		if s := strings.Join(got, " "); s != c.want || wantSyntax != errors.As(err, &syntax) || !wantSyntax && !errors.Is(err, c.err) {
			t.Errorf("%s: %q %v, want %q %v", c.address, s, err, c.want, c.err)
		}
	}
}
