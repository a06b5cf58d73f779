package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
)

// moveView is what became of a move.
type moveView struct {
	Address  string              `json:"address"`
	ID       string              `json:"id"`
	From     string              `json:"from"`
	To       string              `json:"to"`
	Messages int64               `json:"messages"`
	Bytes    int64               `json:"bytes"`
	Damage   []mailstore.Problem `json:"damage,omitempty"`
	Problem  string              `json:"problem,omitempty"`
}

func (t *tool) cmdAccountMove() *cobra.Command {
	var f storeFlags
	var to string
	var abort, force bool
	cmd := &cobra.Command{
		Use:   "move ADDRESS --to VOLUME",
		Short: "Move an account's mail to another volume while it is in use",
		Long: `Move an account's mail to another volume while it is in use. The mail is copied in the background; then
the old place is closed, what came last is copied, and the directory is changed. For that moment, usually
well under a second, clients are asked to connect again and new mail waits at the switches. Clients find
everything as it was: UIDs, flags, mod-sequences; they download nothing again. Nothing that was
acknowledged is lost.

It runs on a box that has both volumes mounted. When it was interrupted, however hard, the same command
goes on where it was. --abort gives a move up, as long as the old place is not closed. What remains at the
old place goes to the trash after the retention.`,
		Example: `  shoalctl account move carol@example.test --to vol02
  shoalctl account move carol@example.test --to vol02 --abort`,
		Args: exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usageError{errors.New("account move needs --to VOLUME")}
			}
			ctx := cmd.Context()
			return t.withStore(ctx, f, nil, func(a *dirclient.Admin, s *localStore) error {
				account, err := a.Account(ctx, args[0])
				if err != nil {
					return err
				}
				if abort {
					return t.abortMove(s, account, to)
				}
				if err := t.readyToMove(ctx, a, s, to, force); err != nil {
					return err
				}
				v, err := t.moveAccount(ctx, a, s, account, to, t.ticker())
				if err != nil {
					return interrupted(err)
				}
				if err := t.show(v, func() {
					t.say("%s moved from %s to %s: %d messages, %s", v.Address, v.From, v.To, v.Messages, bytesText(v.Bytes))
					for _, d := range v.Damage {
						t.say("  damaged before the move: %s", printable(d.String()))
					}
				}); err != nil {
					return err
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the volume to move to")
	cmd.Flags().BoolVar(&abort, "abort", false, "give up a move that was begun, and remove the copy")
	cmd.Flags().BoolVar(&force, "force", false, "move although boxes do not answer or do not serve the volume: they will refuse the account's clients until they do")
	boxConfigFlag(cmd, &f)
	return cmd
}

func (t *tool) abortMove(s *localStore, account *dirclient.Account, to string) error {
	m, err := s.NewMove(account.ID, account.Volume, to)
	if err != nil {
		return err
	}
	if err := m.Abort(); err != nil {
		return err
	}
	return t.show(map[string]string{"aborted": account.Address}, func() { t.say("the move of %s to %s is given up", account.Address, to) })
}

// readyToMove makes sure that the volume is there and that every box serves it.
func (t *tool) readyToMove(ctx context.Context, a *dirclient.Admin, s *localStore, to string, force bool) error {
	volumes, err := a.Volumes(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(volumes, func(v dirclient.Volume) bool { return v.Name == to })
	switch {
	case i < 0:
		return fmt.Errorf("%w: volume %s: shoalctl volume list shows them", errNoSuchEntry, to)
	case volumes[i].State != dirclient.VolumeActive && !force:
		return fmt.Errorf("volume %s is %s: it takes no accounts", to, volumes[i].State)
	}
	if _, ok := s.mount(to); !ok {
		return fmt.Errorf("volume %s: %w", to, errNotHere)
	}
	missing, err := t.boxesWithout(ctx, a, s.control, to)
	if err != nil || len(missing) == 0 || force {
		return err
	}
	return fmt.Errorf("%s: they could not serve the account on %s: mount it there, or give --force", strings.Join(missing, "; "), to)
}

// boxStatus is the part of a box's status that tells of its volumes.
type boxStatus struct {
	Volumes map[string]string `json:"volumes"`
	Use     map[string]struct {
		Bytes      uint64 `json:"bytes"`
		Free       uint64 `json:"bytes_free"`
		Inodes     uint64 `json:"inodes"`
		InodesFree uint64 `json:"inodes_free"`
	} `json:"volume_use"`
}

// boxes asks all boxes for their volumes; those that do not answer are named.
func (t *tool) boxes(ctx context.Context, a *dirclient.Admin, k *control) (map[string]boxStatus, []silence, error) {
	servers, err := a.Servers(ctx, pki.RoleBox)
	if err != nil {
		return nil, nil, err
	}
	if k == nil {
		return nil, nil, nil
	}
	answers := make([]struct {
		Service boxStatus `json:"service"`
	}, len(servers))
	silent := k.each(servers, func(i int, address string) error {
		return k.call(ctx, http.MethodGet, address, "/v1/status", &answers[i])
	})
	out := map[string]boxStatus{}
	for i, s := range servers {
		if !slices.ContainsFunc(silent, func(x silence) bool { return x.Server == s.Name }) {
			out[s.Name] = answers[i].Service
		}
	}
	return out, silent, nil
}

// boxesWithout says of each box that does not serve a volume why.
func (t *tool) boxesWithout(ctx context.Context, a *dirclient.Admin, k *control, volume string) (missing []string, err error) {
	boxes, silent, err := t.boxes(ctx, a, k)
	if err != nil {
		return nil, err
	}
	for name, b := range boxes {
		switch state, ok := b.Volumes[volume]; {
		case !ok:
			missing = append(missing, name+" does not serve "+volume)
		case state != "ok":
			missing = append(missing, name+": "+printable(state))
		}
	}
	for _, s := range silent {
		missing = append(missing, s.Server+" does not answer")
	}
	slices.Sort(missing)
	return missing, nil
}

// moveAccount moves one account, or goes on with its move.
func (t *tool) moveAccount(ctx context.Context, a *dirclient.Admin, s *localStore, account *dirclient.Account, to string, tick *ticker) (*moveView, error) {
	v := &moveView{Address: account.Address, ID: account.ID, From: account.Volume, To: to}
	if account.Volume == to {
		return v, nil
	}
	if _, ok := s.mount(account.Volume); !ok {
		return v, fmt.Errorf("volume %s: %w", account.Volume, errNotHere)
	}
	m, err := s.NewMove(account.ID, account.Volume, to)
	if err != nil {
		return v, err
	}
	m.Progress = func(p mailstore.MoveProgress) {
		v.Messages, v.Bytes = p.Messages, p.Bytes
		tick.say(map[string]any{"progress": "move", "address": account.Address, "phase": p.Phase, "mailbox": p.Mailbox, "mailboxes": p.Mailboxes, "of": p.Of, "messages": p.Messages, "bytes": p.Bytes},
			"%s: %s, mailbox %d of %d, %d messages, %s copied", account.Address, p.Phase, p.Mailboxes, p.Of, p.Messages, bytesText(p.Bytes))
	}
	phase, err := m.Phase()
	if errors.Is(err, mailstore.ErrNoAccount) && !errors.Is(err, mailstore.ErrMoved) {
		// Never used. A delivery could make it at any moment, so it is made and moved like any other.
		if _, e := s.Account(ctx, account.Volume, account.ID); e != nil {
			return v, e
		}
		phase, err = m.Phase()
	}
	if err != nil {
		return v, err
	}
	if phase < mailstore.MoveFenced {
		if err := m.Copy(ctx); err != nil {
			return v, err
		}
	}
	if phase < mailstore.MovePublished {
		// From here on the account is refused: nothing interrupts but death.
		ctx := context.WithoutCancel(ctx)
		if err := m.Fence(ctx); err != nil {
			return v, err
		}
		if err := m.Finish(ctx); err != nil {
			return v, fmt.Errorf("%s is closed at its old place and not open at the new one yet: give the same command again: %w", account.Address, err)
		}
	}
	v.Damage = m.Damage
	s.dir.Lock() // one connection, several moves
	err = setVolume(context.WithoutCancel(ctx), a, account, to)
	s.dir.Unlock()
	if err != nil {
		return v, fmt.Errorf("%s lies on %s now, but the directory does not say so: give the same command again: %w", account.Address, to, err)
	}
	t.renewNotes(context.WithoutCancel(ctx), a, s, account, to)
	return v, m.Retire(context.WithoutCancel(ctx))
}

// renewNotes leaves on the new volume what tells users that the account shares mailboxes with them. Without it they are still
// open to them, but not listed once the old volume is gone: no reason to fail.
func (t *tool) renewNotes(ctx context.Context, a *dirclient.Admin, s *localStore, account *dirclient.Account, to string) {
	moved := *account
	moved.Volume = to
	acc, err := s.Account(ctx, to, account.ID)
	if err == nil {
		s.dir.Lock()
		err = t.sharing(a, s).Renew(ctx, &moved, acc)
		s.dir.Unlock()
	}
	if err != nil {
		fmt.Fprintf(t.err, "%s: notes about shared mailboxes are not all renewed: %v\n", account.Address, err)
	}
}

// setVolume changes the directory; that it was changed by somebody else in the same way is fine.
func setVolume(ctx context.Context, a *dirclient.Admin, account *dirclient.Account, to string) error {
	err := a.SetAccountVolume(ctx, account, account.Volume, to)
	if err == nil {
		return nil
	}
	now, e := a.Account(ctx, account.Address)
	if e == nil && now.ID == account.ID && now.Volume == to {
		return nil
	}
	return err
}
