package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/devcluster"
)

// importView is the outcome of an import.
type importView struct {
	Account  string          `json:"account"`
	Messages int64           `json:"messages"` // imported
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
	skip     int64
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
and the exit code is 1.`,
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
	cmd.Flags().Int64Var(&f.skip, "skip", 0, "leave out that many messages at the beginning: to go on where an import broke off")
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
	a, err := dialIMAP(c.IMAP, address, password)
	if err != nil {
		return err
	}
	v, err := t.importAll(ctx, address, src, a, f)
	if err != nil {
		return fmt.Errorf("after %d messages: %w (go on with --skip %d)", v.Messages, err, f.skip+v.Messages+int64(len(v.Failed)))
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

// importAll appends every message. What it returns beside an error is what was acknowledged until then.
func (t *tool) importAll(ctx context.Context, address string, src *source, a *appender, f *importFlags) (*importView, error) {
	v := &importView{Account: address}
	began := time.Now()
	bar := t.newProgress("import", src.total)
	var refused []importFailure
	a.start(func(it item, err error) { // in the appender's goroutine
		if err != nil {
			refused = append(refused, importFailure{it.name, err.Error()})
		} else {
			v.Messages++
		}
		v.Bytes = it.done
		bar.set(v.Bytes, v.Messages)
	})
	created := map[string]bool{"INBOX": true}
	var unreadable []importFailure
	var number int64
	err := src.each(ctx, func(it item) error {
		number++
		if number <= f.skip {
			return nil
		}
		if it.err != nil {
			unreadable = append(unreadable, importFailure{it.name, it.err.Error()})
			if len(unreadable) > maxFailures {
				return fmt.Errorf("more than %d messages cannot be read, the last: %s: %w", maxFailures, it.name, it.err)
			}
			return nil
		}
		mailbox := it.mailbox
		switch {
		case f.mailbox == "":
		case mailbox == "INBOX":
			mailbox = f.mailbox
		default:
			mailbox = f.mailbox + "/" + mailbox
		}
		if !created[mailbox] {
			if err := a.settle(func() error { return a.create(mailbox) }); err != nil {
				return err
			}
			created[mailbox] = true
		}
		return a.append(mailbox, it)
	})
	if finished := a.finish(); err == nil {
		err = finished
	}
	bar.finish()
	v.Failed = append(unreadable, refused...)
	v.Seconds = time.Since(began).Seconds()
	return v, err
}

func (t *tool) printImport(v *importView) {
	t.say("%d messages (%s) imported into %s in %.1f s, %.0f messages/s",
		v.Messages, bytesText(v.Bytes), v.Account, v.Seconds, float64(v.Messages)/max(v.Seconds, 0.001))
	for i, f := range v.Failed {
		if i == 20 {
			t.say("and %d more; --json lists them all", len(v.Failed)-i)
			return
		}
		t.say("not imported: %s: %s", printable(f.Message), printable(f.Reason))
	}
}
