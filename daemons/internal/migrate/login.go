package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/dirclient"
)

// Directory is the directory as authn sees it, where domains are being migrated: passwords that have not come yet are
// tried at the old server, and whom it knows gets an account where the domain says so.
type Directory struct {
	*dirclient.Client
	m *Migrator
}

// Directory gives the view for authn.
func (m *Migrator) Directory() *Directory { return &Directory{m.o.Client, m} }

// Account is Client.Account. An address of a domain that makes accounts has a provisional one.
func (d *Directory) Account(ctx context.Context, address string) (*dirclient.Account, error) {
	acc, err := d.Client.Account(ctx, address)
	if !errors.Is(err, dirclient.ErrNoSuchAccount) {
		return d.m.newest(acc), err
	}
	local, domain, ok := strings.Cut(strings.ToLower(address), "@")
	if !ok || local == "" {
		return nil, err
	}
	dom, derr := d.Client.Domain(ctx, domain)
	if derr != nil || dom.Migration == nil || !dom.Migration.Create {
		return nil, err
	}
	d.m.mu.Lock()
	made := d.m.made[local+"@"+dom.Name]
	d.m.mu.Unlock()
	if made != nil {
		return made, nil
	}
	sum := sha256.Sum256([]byte(address))
	return &dirclient.Account{
		DN: dirclient.AccountDN(d.Client.Suffix(), local, dom.Name), Address: local + "@" + dom.Name, Domain: dom.Name, ID: "new-" + hex.EncodeToString(sum[:12]),
		Status: dirclient.StatusActive, Migrating: []string{dirclient.MigratePassword, dirclient.MigrateMail}, Provisional: true,
	}, nil
}

// AccountByID is Client.AccountByID.
func (d *Directory) AccountByID(ctx context.Context, id string) (*dirclient.Account, error) {
	acc, err := d.Client.AccountByID(ctx, id)
	return d.m.newest(acc), err
}

// Bind is Client.Bind. A password that the directory refuses is right as well if the account's is still to come from the old server and
// that one takes it: it is the account's from then on.
func (d *Directory) Bind(ctx context.Context, dn, password string) error {
	err := d.Client.Bind(ctx, dn, password)
	if err != nil && !errors.Is(err, dirclient.ErrInvalidCredentials) {
		return err
	}
	address := addressOf(dn)
	if address == "" {
		return err
	}
	acc, lookup := d.Account(ctx, address)
	if lookup != nil || len(acc.Migrating) == 0 || !strings.EqualFold(acc.DN, dn) {
		return err
	}
	dom, lookup := d.Client.Domain(ctx, acc.Domain)
	if lookup != nil || dom.Migration == nil {
		return err
	}
	if err != nil {
		if !acc.Migrates(dirclient.MigratePassword) && !acc.Provisional {
			return err
		}
		if acc, err = d.m.take(ctx, dom.Migration, acc, password); err != nil {
			return err
		}
	}
	if acc.Migrates(dirclient.MigrateMail) && d.m.o.Store != nil {
		return d.m.arrive(ctx, dom.Migration, acc, password)
	}
	return nil
}

// addressOf is the address of the account at a DN, or "".
func addressOf(dn string) string {
	n, err := ldap.ParseDN(dn)
	if err != nil || len(n.RDNs) < 2 || len(n.RDNs[0].Attributes) != 1 || len(n.RDNs[1].Attributes) != 1 {
		return ""
	}
	uid, domain := n.RDNs[0].Attributes[0], n.RDNs[1].Attributes[0]
	if !strings.EqualFold(uid.Type, "uid") || !strings.EqualFold(domain.Type, "associatedDomain") {
		return ""
	}
	return strings.ToLower(uid.Value + "@" + domain.Value)
}

// take tries a password at the old server and, if it is right, makes it the account's.
func (m *Migrator) take(ctx context.Context, from *dirclient.Migration, acc *dirclient.Account, password string) (*dirclient.Account, error) {
	if err := m.try(ctx, from, acc.Address, password); err != nil {
		if errors.Is(err, errRefused) {
			m.m.logins.WithLabelValues("wrong").Inc()
			return nil, fmt.Errorf("%w: %w", dirclient.ErrInvalidCredentials, err)
		}
		m.m.logins.WithLabelValues("unavailable").Inc()
		m.o.Log.WarnContext(ctx, "old server cannot be asked", "event", "migration-login", "account", acc.Address, "server", from.Server, "error", err)
		return nil, fmt.Errorf("%w: %w", dirclient.ErrUnavailable, err)
	}
	result := "taken"
	err := m.write(ctx, func(a *dirclient.Admin) error {
		if acc.Provisional {
			made, err := a.AddAccount(ctx, dirclient.NewAccount{Address: acc.Address, Migrating: acc.Migrating, Place: place(acc.Address)})
			if errors.Is(err, dirclient.ErrExists) {
				made, err = a.Account(ctx, acc.Address)
			}
			if err != nil {
				return err
			}
			acc = made
		}
		err := a.TakePassword(ctx, acc.DN, password)
		if errors.Is(err, dirclient.ErrExists) { // another server was faster, or the owner has changed it since
			result = "right"
			err = m.o.Bind(ctx, a.URI(), acc.DN, password)
		}
		if err != nil {
			return err
		}
		now, err := a.Account(ctx, acc.Address)
		if err == nil {
			acc = now
			m.remember(now)
		}
		return err
	})
	if errors.Is(err, dirclient.ErrInvalidName) && !acc.Provisional { // what the directory's rules refuse as a password
		m.o.Log.WarnContext(ctx, "the old server's password cannot be stored", "event", "migration-login", "account", acc.Address, "error", err)
		result, err = "right", nil
	}
	if err != nil {
		return nil, err
	}
	m.m.logins.WithLabelValues(result).Inc()
	m.o.Log.InfoContext(ctx, "login checked by the old server", "event", "migration-login", "account", acc.Address, "server", from.Server, "result", result)
	return acc, nil
}

// try asks the old server about a password. errRefused: it is wrong.
func (m *Migrator) try(ctx context.Context, from *dirclient.Migration, address, password string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*m.o.Settings.Timeout)
	defer cancel()
	select {
	case m.checks <- struct{}{}:
		defer func() { <-m.checks }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c, err := m.dial(ctx, from)
	if err != nil {
		return err
	}
	defer c.end()
	if err := c.login(from, oldName(from, address), password); err != nil {
		return err
	}
	_ = c.Logout().Wait() // it has said yes
	return nil
}

// place chooses a volume by the address: accounts are spread evenly.
func place(address string) func(context.Context, []string) (string, error) {
	return func(_ context.Context, active []string) (string, error) {
		h := fnv.New32a()
		_, _ = h.Write([]byte(address))
		return active[h.Sum32()%uint32(len(active))], nil
	}
}

// remember keeps an account as it was made or changed until every lookup shows it.
func (m *Migrator) remember(acc *dirclient.Account) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.made) >= maxSecrets {
		clear(m.made)
	}
	m.made[acc.Address] = acc
}

// newest gives an account as this server left it, as long as lookups show an older state: its own change of the password must not look
// like somebody else's.
func (m *Migrator) newest(acc *dirclient.Account) *dirclient.Account {
	if acc == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	made := m.made[acc.Address]
	if made == nil {
		return acc
	}
	if made.ID == acc.ID && made.CredentialVersion > acc.CredentialVersion {
		return made
	}
	delete(m.made, acc.Address)
	return acc
}

// arrive notes that the owner of an account is here, and waits a while for the first round of copying.
func (m *Migrator) arrive(ctx context.Context, from *dirclient.Migration, acc *dirclient.Account, password string) error {
	m.mu.Lock()
	if _, known := m.secrets[acc.ID]; known || len(m.secrets) < maxSecrets {
		m.secrets[acc.ID] = secret{acc, password}
	}
	m.mu.Unlock()
	if from.State == dirclient.MigrationPaused {
		return nil
	}
	if done, err := m.firstDone(ctx, acc); done || err != nil {
		return err
	}
	m.hasten(acc)
	deadline := m.o.Clock.NewTimer(m.o.Settings.Wait)
	defer deadline.Stop()
	for {
		m.mu.Lock()
		ended := m.rounds[acc.ID]
		if ended == nil {
			ended = make(chan struct{})
			m.rounds[acc.ID] = ended
		}
		m.mu.Unlock()
		again := m.o.Clock.NewTimer(time.Second) // another box may be at it
		select {
		case <-ended:
		case <-again.C():
		case <-deadline.C():
			again.Stop()
			if m.o.Settings.Hold {
				return fmt.Errorf("%w: the mail of %s is still being copied", dirclient.ErrUnavailable, acc.Address)
			}
			m.o.Log.LogAttrs(ctx, slog.LevelInfo, "login before the first round of copying has ended", slog.String("event", "migration-login"), slog.String("account", acc.Address))
			return nil
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("%w: %w", dirclient.ErrUnavailable, ctx.Err())
		}
		again.Stop()
		if done, err := m.firstDone(ctx, acc); done || err != nil {
			return err
		}
	}
}

// firstDone says whether the first round of an account has ended, on whichever box.
func (m *Migrator) firstDone(ctx context.Context, acc *dirclient.Account) (bool, error) {
	m.mu.Lock()
	done := m.copied[acc.ID]
	m.mu.Unlock()
	if done {
		return true, nil
	}
	handle, err := m.o.Store.Account(ctx, acc.Volume, acc.ID)
	if err != nil {
		return false, fmt.Errorf("%w: %w", dirclient.ErrUnavailable, err)
	}
	p, err := readProgress(ctx, handle)
	if err != nil {
		return false, fmt.Errorf("%w: %w", dirclient.ErrUnavailable, err)
	}
	if p.Rounds > 0 {
		m.mu.Lock()
		if len(m.copied) >= maxSecrets {
			clear(m.copied)
		}
		m.copied[acc.ID] = true
		m.mu.Unlock()
	}
	return p.Rounds > 0, nil
}
