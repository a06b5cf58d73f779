package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/maildir"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

// adoptServer is the name under which adopted messages stand in the store. No server of the service may be called so.
const adoptServer = "adopt"

// adoptVolume is the name of the volume in this process.
const adoptVolume = "here"

// attrAdopted is the account's attribute that ends adoption: from then on its mail is this service's only.
const (
	attrAdopted = "adopted"
	adoptedEnd  = "finished"
)

type adoptFlags struct {
	volume    string
	accountID string
	control   string
	server    string
	doveconf  string
	uidl      string
	prefix    string
	uses      []string
	final     bool
	dry       bool
}

func (t *tool) cmdAdopt() *cobra.Command {
	return group("adopt", "Take over Maildirs of Dovecot or Courier in place", t.cmdAdoptRun(), t.cmdAdoptFinish())
}

func (t *tool) cmdAdoptRun() *cobra.Command {
	var f adoptFlags
	cmd := &cobra.Command{
		Use:   "run ADDRESS MAILDIR --volume-path PATH",
		Short: "Give an account the mail of a Maildir tree, by hard links and with its UIDs",
		Long: `Give an account the mail of a Maildir tree that Dovecot or Courier keeps on the same file system as the
volume. No message is copied: each file gets a second name in the volume. UIDVALIDITY, UIDs, flags, keywords, dates, folders,
subscriptions, special uses and POP3 unique-ids are kept, so clients download nothing again. The tree itself is only read.

Run it as root, on a machine where both are mounted and where root is not squashed. The steps:

  1. adopt run ADDRESS MAILDIR --volume-path PATH            while the old server works, as often as you like:
                                                         each run takes over what has changed since the last
  2. stop the old server for this user
  3. adopt run ADDRESS MAILDIR --volume-path PATH --final    what came last, and mail that had no UID yet
  4. adopt finish ADDRESS --volume-path PATH                 the files become the service's
  5. send mail and clients to the new service

Between 1 and 4 nobody may use the account here. A run that was interrupted, however, goes on where it was. The way
back is "shoalctl export --volume-path". Compressed files (zlib plugin: gz, bz2) are stored anew, unpacked.`,
		Example: `  shoalctl adopt run alice@example.test /srv/mail/vhosts/alice/Maildir --volume-path /srv/mail/shoal
  doveconf -n > dovecot.txt; shoalctl adopt run ... --doveconf dovecot.txt --final`,
		Args: exactArgs("the account's address", "the Maildir"),
		RunE: func(cmd *cobra.Command, args []string) error { return t.runAdopt(cmd.Context(), args[0], args[1], &f) },
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&f.final, "final", false, "the old server is stopped: take over mail without UIDs, too")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "read everything and say what would be done")
	cmd.Flags().StringVar(&f.control, "control", "", "where Dovecot keeps its lists (CONTROL= in mail_location)")
	cmd.Flags().StringVar(&f.server, "server", "", "dovecot, courier or none (default: as the files say)")
	cmd.Flags().StringVar(&f.doveconf, "doveconf", "", "file with the output of doveconf -n: special uses, POP3 unique-ids")
	cmd.Flags().StringVar(&f.uidl, "uidl-format", "", `Dovecot's pop3_uidl_format (default: as doveconf says, else `+strings.ReplaceAll(maildir.DefaultUIDL, "%", "%%")+`)`)
	cmd.Flags().StringVar(&f.prefix, "prefix", "", `put folders below this, such as "INBOX" for clients of Courier that insist on it`)
	cmd.Flags().StringArrayVar(&f.uses, "special-use", nil, "FOLDER=USE, such as Ablage=Archive; may be given several times")
	return cmd
}

func (t *tool) cmdAdoptFinish() *cobra.Command {
	var f adoptFlags
	cmd := &cobra.Command{
		Use:   "finish ADDRESS --volume-path PATH",
		Short: "Make adopted files the service's own: the old server loses them",
		Long: `Give all files of an adopted account to the user that the service runs as (the owner of the volume's marker
file). They are the same files that the old server has under other names, so it cannot read them any longer. No adoption
runs for this account after that. It may be repeated.`,
		Example: `  shoalctl adopt finish alice@example.test --volume-path /srv/mail/shoal`,
		Args:    exactArgs("the account's address"),
		RunE:    func(cmd *cobra.Command, args []string) error { return t.finishAdopt(cmd.Context(), args[0], &f) },
	}
	f.register(cmd)
	return cmd
}

func (f *adoptFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.volume, "volume-path", "", "root of the account's volume, as it is mounted here")
	cmd.Flags().StringVar(&f.accountID, "account-id", "", "the account's id, where the directory is not at hand")
}

// openVolume opens the store on a volume that is mounted here, and finds the account's id. With an account of the directory
// the volume must be the account's.
func (t *tool) openVolume(ctx context.Context, address, path, id string) (s *mailstore.Store, accountID string, err error) {
	if path == "" {
		return nil, "", usageError{errors.New("--volume-path is needed: the root of the volume, as it is mounted here")}
	}
	have, err := mailstore.VolumeID(vfs.OS(), path)
	if err != nil {
		return nil, "", err
	}
	if id == "" {
		err := t.withAdmin(ctx, func(a *dirclient.Admin) error {
			account, err := a.Account(ctx, address)
			if err != nil {
				return err
			}
			id = account.ID
			volumes, err := a.Volumes(ctx)
			for _, v := range volumes {
				if v.Name == account.Volume && v.ID != have {
					return fmt.Errorf("%s is volume %s, but %s is on volume %s (%s)", path, have, address, v.Name, v.ID)
				}
			}
			return err
		})
		if err != nil {
			return nil, "", err
		}
	}
	s, err = mailstore.New(mailstore.Options{Server: adoptServer, FS: vfs.OS(), Clock: clock.System(), Log: slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return nil, "", err
	}
	if err := s.AddVolume(adoptVolume, path, have); err != nil {
		return nil, "", errors.Join(err, s.Close())
	}
	return s, id, nil
}

// adoptView is the outcome of a run.
type adoptView struct {
	Account  string         `json:"account"`
	Maildir  string         `json:"maildir"`
	Server   maildir.Server `json:"server"`
	Final    bool           `json:"final"`
	Dry      bool           `json:"dry_run,omitempty"`
	Added    int64          `json:"added"`
	Bytes    int64          `json:"bytes"`
	Unpacked int64          `json:"unpacked,omitempty"` // stored anew
	Changed  int64          `json:"flags_changed"`
	Expunged int64          `json:"expunged"`
	Waiting  int64          `json:"without_uid,omitempty"` // left to the final run
	Folders  []adoptFolder  `json:"folders"`
	Deleted  []string       `json:"folders_deleted,omitempty"`
	Notes    []string       `json:"notes,omitempty"`
	Seconds  float64        `json:"seconds"`
}

type adoptFolder struct {
	Name        string `json:"name"`
	Messages    int    `json:"messages"`
	UIDValidity uint32 `json:"uidvalidity"`
	Added       int64  `json:"added"`
}

func (t *tool) printAdopt(v *adoptView) {
	verb := "taken over"
	if v.Dry {
		verb = "would be taken over"
	}
	t.say("%d messages (%s) of %s %s in %.1f s; flags of %d changed, %d expunged", v.Added, bytesText(v.Bytes), v.Account, verb, v.Seconds, v.Changed, v.Expunged)
	for _, f := range v.Folders {
		t.say("  %-30s %7d messages, %d new", printable(f.Name), f.Messages, f.Added)
	}
	for _, d := range v.Deleted {
		t.say("  %-30s deleted, as in the Maildir", printable(d))
	}
	if v.Unpacked > 0 {
		t.say("%d messages were compressed and are stored anew", v.Unpacked)
	}
	if v.Waiting > 0 {
		t.say("%d messages have no UID yet: the old server gives them one when a client looks, or the final run does", v.Waiting)
	}
	for _, n := range v.Notes {
		t.say("note: %s", printable(n))
	}
	switch {
	case v.Dry:
	case v.Final:
		t.say("now give the files to the service: shoalctl adopt finish %s --volume-path ...", v.Account)
	default:
		t.say("repeat this as often as you like; when the old server is stopped, with --final")
	}
}

// finishAdopt gives the files of an account to the service.
func (t *tool) finishAdopt(ctx context.Context, address string, f *adoptFlags) error {
	s, id, err := t.openVolume(ctx, address, f.volume, f.accountID)
	if err != nil {
		return err
	}
	defer s.Close()
	a, err := s.Account(ctx, adoptVolume, id)
	if err != nil {
		return err
	}
	if err := a.SetAttribute(ctx, attrAdopted, adoptedEnd); err != nil {
		return err
	}
	n, err := ownTree(f.volume, a.Dir(), true)
	if err != nil {
		return err
	}
	v := map[string]any{"account": address, "files": n}
	return t.show(v, func() { t.say("%d files of %s are the service's now", n, address) })
}

// mayAdopt refuses an account whose adoption has ended.
func mayAdopt(ctx context.Context, a *mailstore.Account, address string) error {
	state, err := a.Attribute(ctx, attrAdopted)
	if err == nil && state == adoptedEnd {
		err = fmt.Errorf("the adoption of %s is finished: its mail is here, and another run would undo what its owner did since", address)
	}
	return err
}

// needRoot: files of others can be linked and given away by root only.
func needRoot(path string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("%s belongs to others: run this as root, where root is not squashed", path)
}
