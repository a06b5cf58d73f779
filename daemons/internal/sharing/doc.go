// Package sharing is who may do what with whose mailboxes: access lists (RFC 4314), who is meant by their identifiers, and how a user finds
// the mailboxes that others share.
//
// # Access lists
//
// The rights to a mailbox are attributes of it in its owner's account log (package mailstore), one for each identifier:
//
//	acl:<identifier>    = rights             granted
//	acl:-<identifier>   = rights             taken away
//	identifier          = "user:" account id / "group:" name / "anyone"
//
// Rights are letters in alphabetical order, one for each. Letters that this version does not know are kept. A user is stored by the id of
// his account: an address that is given to somebody else gives him no rights. On the wire it is his address (Identify, Show).
//
// The owner has all rights, whatever the list says, so a server that knows no access lists gives nobody more than this one. Others have
// what any of their identifiers is granted, except what any of them is denied. "anyone" and groups are those of the owner's domain: a provider's
// customers are nothing to each other. There is no anonymous login.
//
// # Who shares with whom
//
// Nobody can look at all accounts, so whoever grants rights leaves a note first:
//
//	shared:<owner's account id>                  = time   in the account of the user that is granted rights
//	shared:<identifier>:<owner's account id>     = time   for groups and anyone: in the account DomainIndex(domain) of the owner's volume
//
// in seconds, base 36. The note comes before the grant, so a server that stops in between leaves a note too many, not one too few. A note
// says "look there", nothing else: mailboxes are shown by the rights that their lists give, so a note that is wrong shows nothing.
// Who looks and finds no rights behind a note that is a day old removes it, and looks again after that: if rights have been granted
// meanwhile the note is written anew. Who grants looks after the grant whether the note is still there. One of the two sees the other.
// There is no store of notes besides the volumes and no lock.
//
// A domain's account of notes has an id that is made of the domain's name. It is made with the first note, and is in no directory.
//
// Left out on purpose: identifiers of other domains' groups; rights of single messages.
package sharing

import (
	"context"
	"log/slog"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

// Directory is what is asked of the directory: *dirclient.Client.
type Directory interface {
	Account(ctx context.Context, address string) (*dirclient.Account, error)
	AccountByID(ctx context.Context, id string) (*dirclient.Account, error)
	// Groups are the names of the groups of the account's domain that it is a member of.
	Groups(ctx context.Context, a *dirclient.Account) ([]string, error)
	// HasGroup tells whether a domain has a group of that name.
	HasGroup(ctx context.Context, domain, name string) (bool, error)
}

// Store is the message store: *mailstore.Store.
type Store interface {
	Account(ctx context.Context, volume, accountID string) (*mailstore.Account, error)
	ExistingAccount(ctx context.Context, volume, accountID string) (*mailstore.Account, error)
	VolumeNames() []string
}

// Options of New; all are required.
type Options struct {
	Store     Store
	Directory Directory
	Clock     clock.Clock
	Log       *slog.Logger
}

// Service answers questions about shared mailboxes. Its methods may run at once.
type Service struct {
	store Store
	dir   Directory
	clock clock.Clock
	log   *slog.Logger
}

// New makes a service.
func New(o Options) *Service { return &Service{o.Store, o.Directory, o.Clock, o.Log} }

// Nobody is a directory that knows nobody: mailboxes can be shared with anyone only, and nobody finds them.
type Nobody struct{}

// Account knows none.
func (Nobody) Account(context.Context, string) (*dirclient.Account, error) {
	return nil, dirclient.ErrNoSuchAccount
}

// AccountByID knows none.
func (Nobody) AccountByID(context.Context, string) (*dirclient.Account, error) {
	return nil, dirclient.ErrNoSuchAccount
}

// Groups are none.
func (Nobody) Groups(context.Context, *dirclient.Account) ([]string, error) { return nil, nil }

// HasGroup knows none.
func (Nobody) HasGroup(context.Context, string, string) (bool, error) { return false, nil }
