package imapsession

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"shoal/daemons/internal/dirclient"
)

// people is a directory in which everybody exists: <name>@example.test has the account account-<name>. Names that begin with "nobody" have none;
// "board" and "archive" are accounts of public mailboxes; those of other.test are account-other-<name>.
type people struct {
	mu     sync.Mutex
	groups map[string][]string // name of a user: his groups
	closed map[string]bool     // addresses that are suspended
	down   bool

	renamed map[string]*dirclient.Account // who has an address now
}

func newPeople() *people {
	return &people{groups: map[string][]string{"bob": {"team"}, "carol": {"team", "staff"}}, closed: map[string]bool{}}
}

func account(name, domain string) *dirclient.Account {
	id := "account-" + name
	if domain != "example.test" {
		id = "account-other-" + name
	}
	a := &dirclient.Account{Address: name + "@" + domain, Domain: domain, ID: id, Volume: "vol01",
		Status: dirclient.StatusActive, Public: name == "board" || name == "archive"}
	if strings.HasPrefix(name, "quota") {
		a.QuotaStorage, a.QuotaMessages = 10<<10, 4
	}
	return a
}

func (p *people) Account(_ context.Context, address string) (*dirclient.Account, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, dirclient.ErrUnavailable
	}
	name, domain, _ := strings.Cut(strings.ToLower(address), "@")
	if strings.HasPrefix(name, "nobody") || domain != "example.test" && domain != "other.test" {
		return nil, fmt.Errorf("%s: %w", address, dirclient.ErrNoSuchAccount)
	}
	a := account(name, domain)
	if now := p.renamed[a.Address]; now != nil {
		a = now
	}
	if p.closed[a.Address] {
		a.Status = dirclient.StatusSuspended
	}
	return a, nil
}

func (p *people) AccountByID(ctx context.Context, id string) (*dirclient.Account, error) {
	name, ok := strings.CutPrefix(id, "account-")
	if !ok {
		return nil, fmt.Errorf("%s: %w", id, dirclient.ErrNoSuchAccount)
	}
	p.mu.Lock()
	gone := p.renamed[name+"@example.test"] != nil
	p.mu.Unlock()
	if gone {
		return nil, fmt.Errorf("%s: %w", id, dirclient.ErrNoSuchAccount)
	}
	if other, ok := strings.CutPrefix(name, "other-"); ok {
		return p.Account(ctx, other+"@other.test")
	}
	return p.Account(ctx, name+"@example.test")
}

func (p *people) Groups(_ context.Context, a *dirclient.Account) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, dirclient.ErrUnavailable
	}
	name, _, _ := strings.Cut(a.Address, "@")
	return p.groups[name], nil
}

func (p *people) HasGroup(_ context.Context, domain, name string) (bool, error) {
	return domain == "example.test" && slices.Contains([]string{"team", "staff"}, strings.ToLower(name)), nil
}

// set changes the directory.
func (p *people) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}
