package route

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
)

// fake is a directory in two maps; a nil value means "cannot say".
type fake struct {
	accounts map[string]*dirclient.Account
	domains  map[string]*dirclient.Domain
	aliases  map[string][]string
}

func (f fake) Alias(_ context.Context, address string) (*dirclient.Alias, error) {
	if t, ok := f.aliases[address]; ok {
		return &dirclient.Alias{Addresses: []string{address}, Targets: t}, nil
	}
	return nil, fmt.Errorf("%w: %s", dirclient.ErrNoSuchAlias, address)
}

func (f fake) Account(_ context.Context, address string) (*dirclient.Account, error) {
	a, ok := f.accounts[address]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %s", dirclient.ErrNoSuchAccount, address)
	case a == nil:
		return nil, dirclient.ErrUnavailable
	}
	return a, nil
}

func (f fake) Domain(_ context.Context, name string) (*dirclient.Domain, error) {
	d, ok := f.domains[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %s", dirclient.ErrNoSuchDomain, name)
	case d == nil:
		return nil, dirclient.ErrUnavailable
	}
	return d, nil
}

func account(address, status string) *dirclient.Account {
	return &dirclient.Account{Address: address, Status: status}
}

func TestRoute(t *testing.T) {
	dir := fake{
		accounts: map[string]*dirclient.Account{
			"alice@example.test":       account("alice@example.test", dirclient.StatusActive),
			"a.smith@example.test":     account("alice@example.test", dirclient.StatusActive),
			"tagged+news@example.test": account("tagged+news@example.test", dirclient.StatusActive),
			"ill@example.test":         account("ill@example.test", dirclient.StatusSuspended),
			"gone@example.test":        account("gone@example.test", dirclient.StatusClosed),
			"gone@all.test":            account("gone@all.test", dirclient.StatusClosed),
			"root@example.test":        account("root@example.test", dirclient.StatusActive),
			"postmaster@own.test":      account("postmaster@own.test", dirclient.StatusActive),
			"sick@example.test":        nil,
			"all@all.test":             account("all@all.test", dirclient.StatusActive),
			"user@xn--exmple-cua.test": account("user@xn--exmple-cua.test", dirclient.StatusActive),
		},
		domains: map[string]*dirclient.Domain{
			"example.test":        {Name: "example.test", Status: dirclient.StatusActive},
			"own.test":            {Name: "own.test", Status: dirclient.StatusActive},
			"all.test":            {Name: "all.test", Status: dirclient.StatusActive, CatchAll: "all@all.test"},
			"lost.test":           {Name: "lost.test", Status: dirclient.StatusActive, CatchAll: "nobody@lost.test"},
			"suspended.test":      {Name: "suspended.test", Status: dirclient.StatusSuspended},
			"closed.test":         {Name: "closed.test", Status: dirclient.StatusClosed},
			"sick.test":           nil,
			"xn--exmple-cua.test": {Name: "xn--exmple-cua.test", Status: dirclient.StatusActive},
		},
	}
	temporary := "temporary"
	for _, c := range []struct{ address, want string }{
		{"alice@example.test", "local alice@example.test address "},
		{"ALICE@Example.TEST", "local alice@example.test address "},
		{"a.smith@example.test", "local alice@example.test address "},
		{"alice+lists@example.test", "local alice@example.test subaddress lists"},
		{"tagged+news@example.test", "local tagged+news@example.test address "},
		{"+alice@example.test", "unknown   "},
		{"user@exämple.test", "local user@xn--exmple-cua.test address "},
		{"bob@example.test", "unknown   "},
		{"bob+alice@example.test", "unknown   "},
		{"ill@example.test", "local ill@example.test address "},
		{"ill+x@example.test", "local ill@example.test subaddress x"},
		{"gone@example.test", "unknown gone@example.test  "},
		{"gone@all.test", "unknown gone@all.test  "}, // the catch-all takes no mail of a closed account
		{"anybody@all.test", "local all@all.test catch-all "},
		{"anybody@lost.test", "unknown   "},
		{"alice@example.org", "foreign   "},
		{"alice@[127.0.0.1]", "foreign   "},
		{"anybody@suspended.test", "suspended   "},
		{"anybody@closed.test", "unknown   "},
		{"postmaster", "local root@example.test postmaster "},
		{"POSTMASTER@all.test", "local root@example.test postmaster "},
		{"postmaster@own.test", "local postmaster@own.test address "},
		{"sick@example.test", temporary},
		{"sick+x@example.test", temporary},
		{"anybody@sick.test", temporary},
	} {
		r, err := New(Options{Directory: dir, Settings: Settings{Separators: "+", Postmaster: "root@example.test"}})
		if err != nil {
			t.Fatal(err)
		}
		a, err := mailaddr.Parse(c.address)
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.Route(t.Context(), a)
		got := fmt.Sprintf("%s %s %s %s", d.Outcome, d.Recipient(), d.Via, d.Detail)
		if err != nil {
			got = temporary
			if !errors.Is(err, dirclient.ErrUnavailable) {
				t.Errorf("%s: the cause is lost: %v", c.address, err)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, wanted %q", c.address, got, c.want)
		}
	}
}

func TestWithoutPostmasterAndSeparators(t *testing.T) {
	dir := fake{
		accounts: map[string]*dirclient.Account{"alice@example.test": account("alice@example.test", dirclient.StatusActive)},
		domains:  map[string]*dirclient.Domain{"example.test": {Name: "example.test", Status: dirclient.StatusActive}},
	}
	r, err := New(Options{Directory: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"postmaster", "postmaster@example.test", "alice+x@example.test"} {
		a, err := mailaddr.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := r.Route(t.Context(), a); err != nil || d.Outcome != Unknown {
			t.Errorf("%s: %v %v", s, d, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, p := range []string{"root", "postmaster", "a b@c"} {
		if _, err := New(Options{Directory: fake{}, Settings: Settings{Postmaster: p}}); err == nil {
			t.Errorf("postmaster %q accepted", p)
		}
	}
}
