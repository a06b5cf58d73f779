package shoalctl

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// How long a command that changed the directory waits for the shadows, and how often it looks.
const (
	settleWait  = 2 * time.Second
	settleEvery = 20 * time.Millisecond
)

// withChange runs f, which changes the directory, and waits until the vaults that can be asked have the change: the next
// thing that the operator tries may reach any of them. It waits for a bounded time, and says when that was not enough.
func (t *tool) withChange(ctx context.Context, f func(*dirclient.Admin) error) error {
	return t.withAdmin(ctx, func(a *dirclient.Admin) error {
		if err := f(a); err != nil {
			return err
		}
		vaults, err := a.Servers(ctx, pki.RoleVault)
		if err != nil || len(vaults) < 2 {
			return nil // the change is made; nobody else has to learn of it, or nobody knows who
		}
		c, err := t.load()
		if err != nil {
			return err
		}
		if late := c.settle(ctx, vaults); len(late) > 0 {
			fmt.Fprintf(t.err, "shoalctl: the change is made at the master, but %s did not have it after %s: `shoalctl status` shows how far they are\n",
				strings.Join(late, ", "), settleWait)
		}
		return nil
	})
}

// settle waits until the vaults that answer are in step, and names those that are not.
func (c *Config) settle(ctx context.Context, vaults []dirclient.Server) (late []string) {
	k, err := c.control()
	if err != nil {
		return nil // no operator's certificate: nothing can be asked
	}
	defer k.close()
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	for {
		views := make([]serverView, len(vaults))
		var wg sync.WaitGroup
		for i, s := range vaults {
			wg.Go(func() { views[i] = ask(ctx, k, s) })
		}
		wg.Wait()
		if ctx.Err() != nil {
			return late
		}
		compareVaults(views)
		late = nil
		for _, v := range views {
			if v.State == "ready" && v.Replication != nil && !v.Replication.InStep {
				late = append(late, v.Name)
			}
		}
		if len(late) == 0 {
			return nil
		}
		pause := time.NewTimer(settleEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return late
		}
	}
}

// readAccount looks an account up by its address.
func (t *tool) readAccount(ctx context.Context, address string, f func(*dirclient.Admin, *dirclient.Account) error) error {
	return t.withAdmin(ctx, onAccount(ctx, address, f))
}

// changeAccount is withChange for one account.
func (t *tool) changeAccount(ctx context.Context, address string, f func(*dirclient.Admin, *dirclient.Account) error) error {
	return t.withChange(ctx, onAccount(ctx, address, f))
}

func onAccount(ctx context.Context, address string, f func(*dirclient.Admin, *dirclient.Account) error) func(*dirclient.Admin) error {
	return func(a *dirclient.Admin) error {
		account, err := a.Account(ctx, address)
		if err != nil {
			return err
		}
		return f(a, account)
	}
}
