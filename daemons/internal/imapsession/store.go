package imapsession

import (
	"context"
	"io"

	"shoal/daemons/internal/mailstore"
)

// Store is the message store: *mailstore.Store.
type Store interface {
	Account(ctx context.Context, volume, accountID string) (*mailstore.Account, error)
	ExistingAccount(ctx context.Context, volume, accountID string) (*mailstore.Account, error)
	VolumeNames() []string
	Stage(ctx context.Context, volume string, r io.Reader, max int64) (*mailstore.Staged, error)
}
