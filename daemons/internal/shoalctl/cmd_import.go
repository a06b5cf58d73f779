package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/devcluster"
)

// importView is the outcome of an import.
type importView struct {
	Account  string          `json:"account"`
	Messages int64           `json:"messages"` // imported
	Known    int64           `json:"known"`    // imported by an earlier run
	Bytes    int64           `json:"bytes"`    // of the source
	Failed   []importFailure `json:"failed,omitempty"`
	Seconds  float64         `json:"seconds"`
}

type importFailure struct {
	Message string `json:"message"`
	Reason  string `json:"reason"`
}

// maxFailures is how many messages may fail before the import is given up.
const maxFailures = 100

type importFlags struct {
	mailbox  string
	format   string
	maxSize  string
	restart  bool
	password passwordFlags
}

func (t *tool) cmdImport() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import ADDRESS PATH...",
		Short: "Import mbox files and Maildirs into an account",
		Long: `Import mbox files and Maildirs into an account, over IMAP and with its owner's password.
Each message is acknowledged only when it is stored durably.

Messages are stored byte for byte, with one rule for line ends: mail has CRLF where files on
Unix have LF, so each LF without a CR before it becomes CRLF. The from-line of an mbox gives the
internal date (for git's patches, whose from-line carries none, the Date field does), Status and
X-Status fields give the flags and stay as they are. A Maildir gives flags, keywords and dates by
its file names and times; its folders become mailboxes of the same names.

The password: that of a demo account is known; otherwise it is asked for, or read from
--password-file or --password-stdin.

A message that cannot be imported is named with the reason, the others are imported all the same,
and the exit code is 1.

An import that was interrupted, in whatever way, goes on when the same command is given again: no
message is lost and none is imported twice. What is imported is noted in a file below
~/.local/state/shoal/import (or XDG_STATE_HOME) until all is done.`,
		Example: `  shoalctl import alice@example.test ~/mail/archive.mbox --mailbox Archive
  shoalctl import alice@example.test ~/Maildir
  git format-patch --stdout --root HEAD > history.mbox
  shoalctl import alice@example.test history.mbox --mailbox History --json`,
		Args: minArgs("the account's address", "an mbox file or Maildir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.runImport(cmd.Context(), args[0], args[1:], &f)
		},
	}
	cmd.Flags().StringVar(&f.mailbox, "mailbox", "", "mailbox to import into, made if missing; the folders of a Maildir go below it (default INBOX)")
	cmd.Flags().StringVar(&f.format, "format", "auto", "how an mbox quotes From lines: auto, mboxo, mboxrd or git")
	cmd.Flags().StringVar(&f.maxSize, "max-size", "64 MiB", "larger messages are not imported")
	cmd.Flags().BoolVar(&f.restart, "restart", false, "import everything, even what an interrupted import has imported already")
	f.password.register(cmd, false)
	return cmd
}

func (t *tool) runImport(ctx context.Context, address string, paths []string, f *importFlags) error {
	size, err := conf.ParseSize(f.maxSize)
	if err != nil {
		return usageError{fmt.Errorf("--max-size: %w", err)}
	}
	c, err := t.load()
	if err != nil {
		return err
	}
	if c.IMAP == nil {
		return errors.New("the configuration has no imap block, which says where mail is imported")
	}
	src, err := newSource(paths, f.format, int64(size))
	if err != nil {
		return err
	}
	password, err := t.ownerPassword(address, &f.password)
	if err != nil {
		return err
	}
	folder, err := stateFolder()
	if err != nil {
		return err
	}
	state, err := openState(folder, importIdentity{address, c.IMAP.Address, f.mailbox, slices.Clone(paths)}, f.restart)
	if err != nil {
		return err
	}
	v, clean, err := t.importWith(ctx, c.IMAP, address, password, src, state, f)
	if closed := state.close(err == nil && len(v.Failed) == 0, clean); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("after %d messages: %w (the same command goes on from here)", v.Messages+v.Known, err)
	}
	if err := t.show(v, func() { t.printImport(v) }); err != nil {
		return err
	}
	if len(v.Failed) > 0 {
		return fmt.Errorf("%d messages were not imported", len(v.Failed))
	}
	return nil
}

// ownerPassword knows the demo accounts of a service on this machine.
func (t *tool) ownerPassword(address string, flags *passwordFlags) (string, error) {
	if flags.file == "" && !flags.stdin {
		for _, data := range t.dataFolders() {
			users, err := devcluster.Layout{Data: data}.Users()
			if err != nil {
				continue
			}
			for _, u := range users {
				if u.Address == address {
					return u.Password, nil
				}
			}
		}
	}
	password, _, err := flags.read(t, "Password of "+address+": ", false)
	return password, err
}

// importWith connects and imports. clean says that everything that was sent has been answered.
func (t *tool) importWith(ctx context.Context, c *IMAP, address, password string, src *source, state *importState, f *importFlags) (v *importView, clean bool, err error) {
	v = &importView{Account: address}
	a, err := dialIMAP(c, address, password)
	if err != nil {
		return v, state.clean, err
	}
	if len(state.boxes) > 0 {
		r, err := openIMAP(c, address, password)
		if err != nil {
			a.conn.Close()
			return v, state.clean, err
		}
		err = state.look(ctx, r, a.separator)
		r.close()
		if err != nil {
			a.conn.Close()
			return v, state.clean, err
		}
		if state.resumed && !t.json {
			fmt.Fprintln(t.err, "import: going on with an earlier import of the same (--restart imports everything again)")
		}
	}
	clean, err = t.importAll(ctx, v, src, a, state, f)
	return v, clean, err
}

// target is the mailbox that a message of the source goes to.
func (f *importFlags) target(mailbox string) string {
	switch {
	case f.mailbox == "":
		return mailbox
	case mailbox == "INBOX":
		return f.mailbox
	}
	return f.mailbox + "/" + mailbox
}

// importAll appends every message that an earlier run has not, and fills v. clean says that everything that was
// sent has been answered.
func (t *tool) importAll(ctx context.Context, v *importView, src *source, a *appender, state *importState, f *importFlags) (clean bool, err error) {
	began := time.Now()
	bar := t.newProgress("import", src.total)
	var refused []importFailure
	var read, answered int64 // bytes of the source: passed over here, passed over by the appender's goroutine
	a.start(func(it item, stored appendUID, err error) error {
		switch {
		case err != nil:
			refused = append(refused, importFailure{it.name, err.Error()})
		case stored.validity != it.box.validity:
			return fmt.Errorf("mailbox %s was made anew while mail was imported into it", it.box.name)
		default:
			if err := state.acknowledged(it.box, stored.uid, it.print); err != nil {
				return err
			}
			v.Messages++
		}
		answered = it.done
		bar.set(answered, v.Messages)
		return nil
	})
	ready := map[string]*importBox{}
	var unreadable []importFailure
	err = src.each(ctx, func(it item) error {
		if it.err != nil {
			unreadable = append(unreadable, importFailure{it.name, it.err.Error()})
			if len(unreadable) > maxFailures {
				return fmt.Errorf("more than %d messages cannot be read, the last: %s: %w", maxFailures, it.name, it.err)
			}
			return nil
		}
		mailbox := f.target(it.mailbox)
		if ready[mailbox] == nil {
			if err := a.settle(func() (err error) {
				ready[mailbox], err = prepare(a, state, mailbox)
				return err
			}); err != nil {
				return err
			}
		}
		it.box, it.print = ready[mailbox], fingerprintOf(it.content)
		known, uid := it.box.known(it.print)
		switch {
		case !known:
			return a.append(mailbox, it)
		case uid != 0:
			if err := state.acknowledged(it.box, uid, it.print); err != nil {
				return err
			}
		}
		v.Known++
		read = it.done
		return nil
	})
	finished := a.finish()
	if err == nil {
		err = finished
	}
	bar.finish()
	v.Bytes = max(read, answered)
	v.Failed = append(unreadable, refused...)
	v.Seconds = time.Since(began).Seconds()
	return finished == nil, err
}

// prepare has a mailbox to import into, and its place in the state.
func prepare(a *appender, state *importState, mailbox string) (*importBox, error) {
	validity, next, err := a.create(mailbox)
	if err != nil {
		return nil, err
	}
	if box := state.boxes[mailbox]; box != nil && box.validity == validity {
		return box, nil
	}
	return state.begin(mailbox, validity, next)
}

func (t *tool) printImport(v *importView) {
	t.say("%d messages (%s) imported into %s in %.1f s, %.0f messages/s",
		v.Messages, bytesText(v.Bytes), v.Account, v.Seconds, float64(v.Messages)/max(v.Seconds, 0.001))
	if v.Known > 0 {
		t.say("%d messages were there already, from an earlier import of the same", v.Known)
	}
	for i, f := range v.Failed {
		if i == 20 {
			t.say("and %d more; --json lists them all", len(v.Failed)-i)
			return
		}
		t.say("not imported: %s: %s", printable(f.Message), printable(f.Reason))
	}
}
