package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/spf13/cobra"
)

// exportView is the outcome of an export.
type exportView struct {
	Account   string          `json:"account"`
	Target    string          `json:"target"`
	Messages  int64           `json:"messages"`
	Known     int64           `json:"known"` // written by an earlier run
	Bytes     int64           `json:"bytes"` // as the server has them
	Mailboxes []exportMailbox `json:"mailboxes"`
	Inexact   []string        `json:"inexact,omitempty"` // messages whose line ends do not survive
	Notes     []string        `json:"notes,omitempty"`
	Seconds   float64         `json:"seconds"`
}

type exportMailbox struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Messages int64  `json:"messages"`
}

type exportFlags struct {
	mailbox  string
	all      bool
	format   string
	crlf     bool
	resume   bool
	password passwordFlags

	volume    string
	accountID string
	owner     string
}

// exportTarget takes the messages of one mailbox after the other.
type exportTarget interface {
	// mailbox begins a mailbox; name is relative to what is exported: "INBOX" is the top. path is where it goes.
	mailbox(name string, m *mailboxView) (path string, err error)
	// has says whether a message is there from an earlier run.
	has(uid imap.UID) bool
	// write takes one message. exact says that an import of what was written gives the same bytes.
	write(m storedMessage, content io.Reader) (exact bool, err error)
	// finish ends the export, in order or not. notes are what could not be kept, for people.
	finish(whole bool) (notes []string, err error)
}

func (t *tool) cmdExport() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export ADDRESS TARGET {--mailbox NAME | --all | --volume-path PATH}",
		Short: "Export an account's mail as a Maildir or as mbox files",
		Long: `Export an account's mail, over IMAP and with its owner's password. Nothing is changed there: no
message becomes read.

A Maildir (the default) keeps flags, keywords and dates, and folders: with --all the whole account, with
--mailbox that mailbox and those below it. An export that was interrupted goes on with --resume.

An mbox keeps dates but no flags. With --mailbox TARGET is one file, with --all a folder with a file for each
mailbox.

Messages are written byte for byte, with one rule for line ends: mail has CRLF where files on Unix have LF, so
each CRLF becomes LF. Import undoes it exactly, unless a message has an LF without a CR or with two; such messages
are named. With --crlf a Maildir gets even those as they are. Lines that begin with "From " are quoted in an mbox as mboxrd
does, which import undoes, too.

What is there is never overwritten: TARGET must be new, or an empty folder. The password: as with import.

With --volume-path the mail is read on its volume, without a password: a Maildir tree for Dovecot with the same UIDVALIDITY,
UIDs, POP3 unique-ids, keywords and subscriptions, the way back from "adopt". On the same file system the messages are not copied but
get a second name. Run it as root on a machine that mounts the volume, when nobody uses the account any longer, and name
the user of the other server with --owner: files have one owner, so the service cannot read them after that.`,
		Example: `  shoalctl export alice@example.test ~/backup/alice --all
  shoalctl export alice@example.test archive.mbox --mailbox Archive --format mbox
  shoalctl export alice@example.test /srv/mail/vhosts/alice/Maildir --volume-path /srv/mail/shoal --owner vmail`,
		Args: exactArgs("the account's address", "the target"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.runExport(cmd.Context(), args[0], args[1], &f)
		},
	}
	cmd.Flags().StringVar(&f.mailbox, "mailbox", "", "export this mailbox; into a Maildir with those below it")
	cmd.Flags().BoolVar(&f.all, "all", false, "export all mailboxes")
	cmd.Flags().StringVar(&f.format, "format", "maildir", "maildir or mbox")
	cmd.Flags().BoolVar(&f.crlf, "crlf", false, "leave line ends as they are (Maildir only)")
	cmd.Flags().BoolVar(&f.resume, "resume", false, "go on with an export that was interrupted (Maildir only)")
	cmd.Flags().StringVar(&f.volume, "volume-path", "", "root of the account's volume, as it is mounted here: read the mail there")
	cmd.Flags().StringVar(&f.accountID, "account-id", "", "with --volume-path: the account's id, where the directory is not at hand")
	cmd.Flags().StringVar(&f.owner, "owner", "", "with --volume-path: USER[:GROUP] that everything is given to")
	f.password.register(cmd, false)
	return cmd
}

func (f *exportFlags) check() error {
	switch {
	case f.volume != "" && (f.mailbox != "" || f.format != "maildir" || f.crlf || f.resume):
		return usageError{errors.New("--volume-path exports the whole account as a Maildir, with the messages as they are")}
	case f.volume != "":
		return nil
	case f.owner != "" || f.accountID != "":
		return usageError{errors.New("--owner and --account-id go with --volume-path")}
	case ways(f.mailbox != "", f.all) != 1:
		return usageError{errors.New("export needs --mailbox or --all")}
	case f.format != "maildir" && f.format != "mbox":
		return usageError{fmt.Errorf("--format %q: it is maildir or mbox", f.format)}
	case f.format == "mbox" && (f.crlf || f.resume):
		return usageError{errors.New("--crlf and --resume go with a Maildir only")}
	}
	return nil
}

func (t *tool) runExport(ctx context.Context, address, target string, f *exportFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.volume != "" {
		return t.exportVolume(ctx, address, target, f)
	}
	c, err := t.load()
	if err != nil {
		return err
	}
	if c.IMAP == nil {
		return errors.New("the configuration has no imap block, which says where mail is")
	}
	password, err := t.ownerPassword(address, &f.password)
	if err != nil {
		return err
	}
	r, err := openIMAP(c.IMAP, address, password)
	if err != nil {
		return err
	}
	defer r.close()
	mailboxes, err := f.choose(r)
	if err != nil {
		return err
	}
	var to exportTarget
	switch {
	case f.format == "maildir":
		to, err = newMaildirTarget(target, exportIdentity{address, c.IMAP.Address, f.mailbox}, f.crlf, f.resume)
	case f.all:
		to, err = newMboxFolder(target)
	default:
		to, err = newMboxFile(target)
	}
	if err != nil {
		return err
	}
	v := &exportView{Account: address, Target: target, Mailboxes: []exportMailbox{}}
	err = t.exportAll(ctx, v, r, mailboxes, to, f)
	notes, finished := to.finish(err == nil)
	v.Notes = notes
	if err == nil {
		err = finished
	}
	if err != nil {
		again := ""
		if f.format == "maildir" {
			again = " (the same command with --resume goes on from here)"
		}
		return fmt.Errorf("after %d messages: %w%s", v.Messages+v.Known, err, again)
	}
	return t.show(v, func() { t.printExport(v) })
}

// choose lists the mailboxes to export and asks how large they are.
func (f *exportFlags) choose(r *imapReader) ([]mailboxView, error) {
	all, err := r.mailboxes()
	if err != nil {
		return nil, err
	}
	if !f.all {
		name := strings.Trim(f.mailbox, "/")
		found := false
		all = slices.DeleteFunc(all, func(m mailboxView) bool {
			same := m.name == name || strings.EqualFold(name, "INBOX") && m.name == "INBOX"
			found = found || same
			return !same && (f.format != "maildir" || !strings.HasPrefix(m.name, name+"/"))
		})
		if !found && len(all) == 0 {
			return nil, fmt.Errorf("%s: %w", printable(f.mailbox), errNoSuchMailbox)
		}
	}
	for i := range all {
		if err := r.measure(&all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

var errNoSuchMailbox = errors.New("no such mailbox")

// relative is the name of a mailbox in what is exported.
func (f *exportFlags) relative(name string) string {
	if f.all {
		return name
	}
	if below, ok := strings.CutPrefix(name, strings.Trim(f.mailbox, "/")+"/"); ok {
		return below
	}
	return "INBOX"
}

func (t *tool) exportAll(ctx context.Context, v *exportView, r *imapReader, mailboxes []mailboxView, to exportTarget, f *exportFlags) error {
	began := time.Now()
	var total int64
	for _, m := range mailboxes {
		total += max(m.size, 0)
	}
	bar := t.newProgress("export", total)
	defer bar.finish()
	defer func() { v.Seconds = time.Since(began).Seconds() }()
	for i := range mailboxes {
		m := &mailboxes[i]
		if err := r.open(m); err != nil {
			return err
		}
		path, err := to.mailbox(f.relative(m.name), m)
		if err != nil {
			return err
		}
		all, err := r.messages(1)
		if err != nil {
			return fmt.Errorf("mailbox %s: %w", m.name, err)
		}
		var uids []imap.UID
		var passed int64
		for _, stored := range all {
			if to.has(stored.uid) {
				v.Known++
				passed += stored.size
				continue
			}
			uids = append(uids, stored.uid)
		}
		v.Bytes += passed
		done := exportMailbox{Name: m.name, Path: path}
		err = r.contents(uids, func(stored storedMessage, content io.Reader) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			exact, err := to.write(stored, content)
			if err != nil {
				return fmt.Errorf("message %d: %w", stored.uid, err)
			}
			if !exact {
				v.Inexact = append(v.Inexact, fmt.Sprintf("%s: UID %d", m.name, stored.uid))
			}
			v.Messages++
			done.Messages++
			v.Bytes += stored.size
			bar.set(v.Bytes, v.Messages)
			return nil
		})
		if err != nil {
			return fmt.Errorf("mailbox %s: %w", m.name, err)
		}
		v.Mailboxes = append(v.Mailboxes, done)
	}
	return nil
}

func (t *tool) printExport(v *exportView) {
	t.say("%d messages (%s) of %s exported to %s in %.1f s", v.Messages, bytesText(v.Bytes), v.Account, v.Target, v.Seconds)
	if v.Known > 0 {
		t.say("%d messages were there already, from the interrupted export", v.Known)
	}
	for _, m := range v.Mailboxes {
		t.say("  %-30s %7d  %s", printable(m.Name), m.Messages, printable(m.Path))
	}
	for _, note := range v.Notes {
		t.say("note: %s", printable(note))
	}
	if n := len(v.Inexact); n > 0 {
		t.say("%d messages have line ends that an import does not restore (--crlf keeps them); the first: %s", n, printable(v.Inexact[0]))
	}
}
