package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

func (t *tool) cmdMailbox() *cobra.Command {
	return group("mailbox", "List, show and share mailboxes; bring back what was deleted",
		t.cmdMailboxList(), t.cmdMailboxShow(), t.cmdMailboxRestore(), t.cmdMailboxACL(), t.cmdMailboxPublic())
}

// storedMailbox is a mailbox as shown.
type storedMailbox struct {
	Name        string   `json:"name"`
	ID          string   `json:"id"`
	Messages    int      `json:"messages"`
	Unseen      int      `json:"unseen"`
	Bytes       int64    `json:"bytes"`
	UIDValidity uint32   `json:"uidvalidity"`
	UIDNext     uint32   `json:"uidnext"`
	ModSeq      uint64   `json:"highestmodseq"`
	Subscribed  bool     `json:"subscribed"`
	SpecialUse  []string `json:"special_use,omitempty"`
	Records     int      `json:"records"`
	LastRecord  uint64   `json:"last_record"`
	Snapshots   []uint64 `json:"snapshots"`
	Interest    []string `json:"interest"`
	Expunged    int      `json:"expunged"`
	Files       int      `json:"files"`
	Path        string   `json:"path"`
}

func viewStored(d *mailstore.Detail) storedMailbox {
	return storedMailbox{Name: d.Name, ID: d.ID, Messages: d.Messages, Unseen: d.Unseen, Bytes: d.Bytes, UIDValidity: d.UIDValidity,
		UIDNext: d.UIDNext, ModSeq: d.ModSeq, Subscribed: d.Subscribed, SpecialUse: d.SpecialUse, Records: d.Records, LastRecord: d.Record,
		Snapshots: d.Snapshots, Interest: d.Interest, Expunged: d.Expunged, Files: d.Files, Path: d.Path}
}

// withAccount opens the account that has an address, on its volume.
func (t *tool) withAccount(ctx context.Context, f storeFlags, address string, run func(*mailstore.Account, *localStore) error) error {
	var account *dirclient.Account
	err := t.withAdmin(ctx, func(a *dirclient.Admin) (err error) {
		account, err = a.Account(ctx, address)
		return err
	})
	if err != nil {
		return err
	}
	return t.withStore(ctx, f, []string{account.Volume}, func(_ *dirclient.Admin, s *localStore) error {
		handle, err := s.Account(ctx, account.Volume, account.ID)
		if err != nil {
			return err
		}
		return run(handle, s)
	})
}

func (t *tool) cmdMailboxList() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:     "list ADDRESS",
		Short:   "List the mailboxes of an account: messages, sizes, length of the log",
		Example: "  shoalctl mailbox list carol@example.test",
		Args:    exactArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return t.withAccount(ctx, f, args[0], func(a *mailstore.Account, _ *localStore) error {
				list, err := a.Mailboxes(ctx)
				if err != nil {
					return err
				}
				views := []storedMailbox{}
				for _, i := range list {
					d, err := a.Detail(ctx, i.Name)
					if errors.Is(err, mailstore.ErrNoMailbox) {
						continue // deleted meanwhile
					}
					if err != nil {
						return err
					}
					views = append(views, viewStored(d))
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{v.Name, fmt.Sprint(v.Messages), fmt.Sprint(v.Unseen), bytesText(v.Bytes), fmt.Sprint(v.UIDValidity), fmt.Sprint(v.UIDNext), fmt.Sprint(v.Records), fmt.Sprint(v.Expunged)}
					}
					t.table([]string{"MAILBOX", "MESSAGES", "UNSEEN", "SIZE", "UIDVALIDITY", "UIDNEXT", "RECORDS", "EXPUNGED"}, rows)
				})
			})
		},
	}
	boxConfigFlag(cmd, &f)
	return cmd
}

func (t *tool) cmdMailboxShow() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:     "show ADDRESS MAILBOX",
		Short:   "Show a mailbox: numbers, log, snapshots, who watches it, what can be undeleted",
		Example: "  shoalctl mailbox show carol@example.test INBOX",
		Args:    exactArgs("the address", "the mailbox"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return t.withAccount(ctx, f, args[0], func(a *mailstore.Account, _ *localStore) error {
				d, err := a.Detail(ctx, args[1])
				if err != nil {
					return err
				}
				v := viewStored(d)
				return t.show(v, func() {
					t.say("mailbox       %s", printable(v.Name))
					t.say("id            %s", v.ID)
					t.say("messages      %d, %d unseen, %s", v.Messages, v.Unseen, bytesText(v.Bytes))
					t.say("uidvalidity   %d", v.UIDValidity)
					t.say("uidnext       %d", v.UIDNext)
					t.say("highestmodseq %d", v.ModSeq)
					t.say("log           last record %d, %d records not compacted", v.LastRecord, v.Records)
					t.say("snapshots     %s", strings.Trim(fmt.Sprint(v.Snapshots), "[]"))
					t.say("files         %d, %d of expunged messages", v.Files, v.Expunged)
					t.say("watched by    %s", orDash(strings.Join(v.Interest, ", ")))
					t.say("special use   %s", orDash(strings.Join(v.SpecialUse, " ")))
					t.say("path          %s", printable(v.Path))
				})
			})
		},
	}
	boxConfigFlag(cmd, &f)
	return cmd
}

func (t *tool) cmdMailboxRestore() *cobra.Command {
	var f storeFlags
	var expunged, deleted, list bool
	var uids, as, from string
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "restore ADDRESS [MAILBOX]",
		Short: "Bring back expunged messages, deleted mailboxes, or a mailbox from a snapshot of the volume",
		Long: `Bring back what was deleted, for as long as the retention lasts, beside the running service:

  --expunged  the expunged messages of a mailbox, or some of them (--uid, --since). They come back into the
              mailbox as new messages: new UIDs, the old flags without \Deleted, the old date.
  --deleted   a deleted mailbox, as a new one with a new UIDVALIDITY.
  --from      a mailbox as it is in a copy of the volume: a snapshot of the file server or a backup. The folder
              is that of the whole volume, with its file shoal-volume. Without a mailbox, all of the account.

--list only shows what could be brought back. The name is the old one, or the one given with --as; it must
be free. To repeat a restoration brings nothing back twice.`,
		Example: `  shoalctl mailbox restore carol@example.test INBOX --expunged --since 2h
  shoalctl mailbox restore carol@example.test --deleted --list
  shoalctl mailbox restore carol@example.test Projects --deleted
  shoalctl mailbox restore carol@example.test INBOX --from /srv/shoal/vol01/.snapshot/hourly.0 --as "INBOX before noon"`,
		Args: func(cmd *cobra.Command, args []string) error {
			kinds := 0
			for _, b := range []bool{expunged, deleted, from != ""} {
				if b {
					kinds++
				}
			}
			switch {
			case kinds != 1:
				return usageError{errors.New("mailbox restore needs one of --expunged, --deleted and --from")}
			case len(args) < 1 || len(args) > 2 || len(args) == 1 && !(list || from != "") || len(args) == 1 && expunged || len(args) == 1 && as != "":
				return usageError{fmt.Errorf("mailbox restore needs the address and the mailbox: %s", cmd.UseLine())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			box := ""
			if len(args) == 2 {
				box = args[1]
			}
			set, err := uidSet(uids)
			if err != nil {
				return err
			}
			var after time.Time
			if since > 0 {
				after = time.Now().Add(-since)
			}
			return t.withAccount(ctx, f, args[0], func(a *mailstore.Account, s *localStore) error {
				tick := t.ticker()
				progress := func(done, of int) {
					tick.say(map[string]any{"progress": "restore", "messages": done, "of": of}, "%d of %d messages", done, of)
				}
				switch {
				case expunged:
					m, err := a.Open(ctx, box)
					if err != nil {
						return err
					}
					if list {
						return t.listExpunged(ctx, m)
					}
					r, err := m.Undelete(ctx, set, after)
					if err != nil {
						return err
					}
					r.Mailbox = box
					return t.showRestored([]*mailstore.Restored{r})
				case deleted && list:
					return t.listDeleted(ctx, a)
				case deleted:
					r, err := a.RestoreDeleted(ctx, box, as, progress)
					if err != nil {
						return err
					}
					return t.showRestored([]*mailstore.Restored{r})
				}
				return t.restoreFrom(ctx, a, s, from, box, as, list, progress)
			})
		},
	}
	cmd.Flags().BoolVar(&expunged, "expunged", false, "expunged messages")
	cmd.Flags().BoolVar(&deleted, "deleted", false, "a deleted mailbox, by its name or id")
	cmd.Flags().StringVar(&from, "from", "", "folder of a copy of the volume")
	cmd.Flags().BoolVar(&list, "list", false, "only show what could be brought back")
	cmd.Flags().StringVar(&uids, "uid", "", "only these old UIDs, for example 5,7:9")
	cmd.Flags().DurationVar(&since, "since", 0, "only what was expunged so long ago or less, for example 2h")
	cmd.Flags().StringVar(&as, "as", "", "name of the new mailbox")
	boxConfigFlag(cmd, &f)
	return cmd
}

// uidSet reads 5,7:9.
func uidSet(s string) (mailstore.UIDSet, error) {
	var set mailstore.UIDSet
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		var a, b uint32
		if n, err := fmt.Sscanf(part, "%d:%d", &a, &b); n != 2 || err != nil {
			if n, err := fmt.Sscanf(part, "%d", &a); n != 1 || err != nil || fmt.Sprint(a) != part {
				return nil, usageError{fmt.Errorf("--uid %s: want for example 5,7:9", s)}
			}
			b = a
		}
		if a == 0 || b == 0 {
			return nil, usageError{fmt.Errorf("--uid %s: there is no UID 0", s)}
		}
		set.AddRange(a, b)
	}
	return set, nil
}

func (t *tool) listExpunged(ctx context.Context, m *mailstore.Mailbox) error {
	all, err := m.Expunged(ctx)
	if err != nil {
		return err
	}
	return t.show(all, func() {
		rows := make([][]string, len(all))
		for i, x := range all {
			at, back := "", ""
			if !x.At.IsZero() {
				at = x.At.Local().Format(time.DateTime)
			}
			if x.Back {
				back = "there again"
			}
			rows[i] = []string{fmt.Sprint(x.UID), bytesText(x.Size), x.InternalDate.Local().Format(time.DateTime), at, back}
		}
		t.table([]string{"UID", "SIZE", "DATE", "EXPUNGED", ""}, rows)
	})
}

func (t *tool) listDeleted(ctx context.Context, a *mailstore.Account) error {
	all, err := a.Deleted(ctx)
	if err != nil {
		return err
	}
	return t.show(all, func() {
		rows := make([][]string, len(all))
		for i, x := range all {
			rows[i] = []string{x.Name, x.ID, x.At.Local().Format(time.DateTime), fmt.Sprint(x.Messages)}
		}
		t.table([]string{"MAILBOX", "ID", "DELETED", "MESSAGES"}, rows)
	})
}

func (t *tool) restoreFrom(ctx context.Context, a *mailstore.Account, s *localStore, from, box, as string, list bool, progress func(done, of int)) error {
	x, err := s.OpenArchive(from)
	if err != nil {
		return err
	}
	all, err := x.Mailboxes(a.ID())
	if err != nil {
		return err
	}
	if list {
		return t.show(all, func() {
			rows := make([][]string, len(all))
			for i, m := range all {
				rows[i] = []string{m.Name, m.ID, fmt.Sprint(m.UIDValidity)}
			}
			t.table([]string{"MAILBOX", "ID", "UIDVALIDITY"}, rows)
		})
	}
	var out []*mailstore.Restored
	for _, m := range all {
		if box != "" && m.Name != box {
			continue
		}
		name := as
		if box == "" {
			name = "Restored/" + m.Name
		}
		r, err := a.RestoreFrom(ctx, x, m.Name, name, progress)
		if box == "" && errors.Is(err, mailstore.ErrMailboxExists) {
			continue // an earlier try
		}
		if err != nil {
			return err
		}
		out = append(out, r)
	}
	if box != "" && len(out) == 0 {
		return fmt.Errorf("%q in %s: %w", box, from, mailstore.ErrNoMailbox)
	}
	return t.showRestored(out)
}

func (t *tool) showRestored(all []*mailstore.Restored) error {
	missing := 0
	for _, r := range all {
		missing += r.Missing
	}
	if err := t.show(all, func() {
		for _, r := range all {
			t.say("%s: %d messages are back", printable(r.Mailbox), len(r.UIDs))
			if r.Back > 0 {
				t.say("  %d were there already", r.Back)
			}
			if r.Missing > 0 {
				t.say("  %d have no whole file any more", r.Missing)
			}
		}
	}); err != nil {
		return err
	}
	if missing > 0 {
		return foundError{fmt.Errorf("%d messages could not be brought back", missing)}
	}
	return nil
}
