package sharing

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/scram"
)

// Identifier is whom an entry of an access list is about, as it is stored: "user:<account id>", "group:<name>" or "anyone".
type Identifier string

// Anyone stands for all accounts of the owner's domain.
const Anyone Identifier = "anyone"

const (
	prefixUser  = "user:"
	prefixGroup = "group:"
	maxGroup    = 256 // bytes of a group's name
)

// UserIdentifier is that of an account.
func UserIdentifier(accountID string) Identifier { return Identifier(prefixUser + accountID) }

// GroupIdentifier is that of a group.
func GroupIdentifier(name string) Identifier {
	return Identifier(prefixGroup + strings.ToLower(name))
}

// ErrIdentifier: a text that can be no identifier. ErrUnknown: nobody is called so.
var (
	ErrIdentifier = errors.New("not an identifier")
	ErrUnknown    = errors.New("nobody is called so")
)

// Identify reads an identifier as users write it: an address of an account (of the given domain, if it names none), "group:name" or "$name", "anyone",
// "user:<account id>"; with a "-" in front the rights are taken away. known says that it has to exist. ErrIdentifier, ErrUnknown, or what the directory says.
func (s *Service) Identify(ctx context.Context, text, domain string, known bool) (id Identifier, negative bool, err error) {
	text, negative = strings.CutPrefix(text, "-")
	name, err := scram.Prepare(text)
	if err != nil || name == "" || len(name) > 1000 {
		return "", negative, fmt.Errorf("%.100q: %w", text, ErrIdentifier)
	}
	if strings.EqualFold(name, string(Anyone)) {
		return Anyone, negative, nil
	}
	group, isGroup := strings.CutPrefix(name, prefixGroup)
	if !isGroup {
		group, isGroup = strings.CutPrefix(name, "$")
	}
	if isGroup {
		if group == "" || len(group) > maxGroup {
			return "", negative, fmt.Errorf("%.100q: %w", text, ErrIdentifier)
		}
		if known {
			switch there, err := s.dir.HasGroup(ctx, domain, group); {
			case err != nil:
				return "", negative, fmt.Errorf("group %q: %w", group, err)
			case !there:
				return "", negative, fmt.Errorf("group %q of %s: %w", group, domain, ErrUnknown)
			}
		}
		return GroupIdentifier(group), negative, nil
	}
	if id, ok := strings.CutPrefix(name, prefixUser); ok {
		if !accountID(id) {
			return "", negative, fmt.Errorf("%.100q: %w", text, ErrIdentifier)
		}
		if known {
			if _, err := s.dir.AccountByID(ctx, id); err != nil {
				return "", negative, unknown(err)
			}
		}
		return UserIdentifier(id), negative, nil
	}
	if !strings.Contains(name, "@") {
		name += "@" + domain
	}
	a, err := s.dir.Account(ctx, name)
	if err != nil {
		return "", negative, unknown(err)
	}
	return UserIdentifier(a.ID), negative, nil
}

// accountID reports whether an id can be that of an account.
func accountID(id string) bool {
	for i := range len(id) {
		if c := id[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return len(id) >= 8 && len(id) <= 40
}

func unknown(err error) error {
	if errors.Is(err, dirclient.ErrNoSuchAccount) || errors.Is(err, dirclient.ErrNoSuchDomain) {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// Show is an identifier as users read it. An account that is no more, or that the directory does not tell of now, is shown by its id.
func (s *Service) Show(ctx context.Context, id Identifier) string {
	user, ok := strings.CutPrefix(string(id), prefixUser)
	if !ok {
		return string(id)
	}
	if a, err := s.dir.AccountByID(ctx, user); err == nil {
		return a.Address
	}
	return string(id)
}

// Who is a user with everything that entries of access lists may call him.
type Who struct {
	Account *dirclient.Account
	ids     []Identifier // the user, anyone, groups
}

// Who finds the groups of a user.
func (s *Service) Who(ctx context.Context, a *dirclient.Account) (*Who, error) {
	groups, err := s.dir.Groups(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("groups of %s: %w", a.Address, err)
	}
	w := &Who{Account: a, ids: []Identifier{UserIdentifier(a.ID), Anyone}}
	for _, g := range groups {
		w.ids = append(w.ids, GroupIdentifier(g))
	}
	return w, nil
}

// called are the identifiers that mean the user in lists of an owner.
func (w *Who) called(owner *dirclient.Account) []Identifier {
	if strings.EqualFold(owner.Domain, w.Account.Domain) {
		return w.ids
	}
	return w.ids[:1]
}
