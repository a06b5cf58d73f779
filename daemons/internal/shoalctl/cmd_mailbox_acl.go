package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sharing"
)

// maxACL bounds the access lists that these commands make; the boxes have a setting.
const maxACL = 200

// groupless is the directory as access lists are changed with it: nobody's groups are asked for.
type groupless struct{ *dirclient.Admin }

func (groupless) Groups(context.Context, *dirclient.Account) ([]string, error) { return nil, nil }

// sharedMailbox is a mailbox whose access list is worked on.
type sharedMailbox struct {
	service *sharing.Service
	owner   *dirclient.Account
	account *mailstore.Account
	list    *mailstore.Listing
	box     mailstore.MailboxInfo
}

// withShared opens a mailbox of an account for its access list. All volumes of this machine are opened: notes for those who are given rights
// lie on theirs.
func (t *tool) withShared(ctx context.Context, f storeFlags, address, mailbox string, run func(*sharedMailbox) error) error {
	return t.withStore(ctx, f, nil, func(a *dirclient.Admin, s *localStore) error {
		owner, err := a.Account(ctx, address)
		if err != nil {
			return err
		}
		m := &sharedMailbox{owner: owner, service: t.sharing(a, s)}
		if _, ok := s.mount(owner.Volume); !ok {
			return fmt.Errorf("volume %s: %w", owner.Volume, errNotHere)
		}
		if m.account, err = s.Account(ctx, owner.Volume, owner.ID); err != nil {
			return err
		}
		if m.list, err = m.account.Listing(ctx); err != nil {
			return err
		}
		var ok bool
		if m.box, ok = m.list.Mailbox(mailbox); !ok {
			return fmt.Errorf("%q: %w", mailbox, mailstore.ErrNoMailbox)
		}
		return run(m)
	})
}

func (t *tool) sharing(a *dirclient.Admin, s *localStore) *sharing.Service {
	return sharing.New(sharing.Options{Store: s, Directory: groupless{a}, Clock: clock.System(), Log: slog.New(slog.NewTextHandler(t.err, nil))})
}

// aclView is an entry of an access list as shown.
type aclView struct {
	Identifier string `json:"identifier"`
	Negative   bool   `json:"negative,omitempty"`
	Rights     string `json:"rights"`
}

func (t *tool) showACL(ctx context.Context, m *sharedMailbox) error {
	list, err := m.account.Listing(ctx)
	if err != nil {
		return err
	}
	views := []aclView{}
	if !m.owner.Public {
		views = append(views, aclView{Identifier: m.owner.Address, Rights: sharing.All.String()})
	}
	for _, e := range sharing.List(list, m.box.ID) {
		views = append(views, aclView{m.service.Show(ctx, e.Identifier), e.Negative, e.Rights.String()})
	}
	return t.show(views, func() {
		rows := make([][]string, len(views))
		for i, v := range views {
			who := v.Identifier
			if v.Negative {
				who = "-" + who
			}
			rows[i] = []string{who, v.Rights}
		}
		t.table([]string{"WHO", "RIGHTS"}, rows)
	})
}

func (t *tool) cmdMailboxACL() *cobra.Command {
	return group("acl", "Show and change who may do what with a mailbox", t.cmdACLShow(), t.cmdACLSet(), t.cmdACLDelete())
}

const aclHelp = `

WHO is the address of an account, group:NAME for a group (groupOfNames) of the owner's domain, or anyone for all accounts of that domain. With a "-" in
front of it the rights are taken away, whatever else grants them; write "--" before it, so that it is not taken for a flag.
The rights are those of IMAP (RFC 4314): l see it in lists, r read, s keep \Seen, w other flags, i put messages in, p send mail to it, k make mailboxes
below it, x delete or rename it, t mark messages as deleted, e expunge them, a change this list. The owner has all, always.`

func (t *tool) cmdACLShow() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:     "show ADDRESS MAILBOX",
		Short:   "Show the access list of a mailbox",
		Example: "  shoalctl mailbox acl show carol@example.test Projects",
		Args:    exactArgs("the owner's address", "the mailbox"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withShared(cmd.Context(), f, args[0], args[1], func(m *sharedMailbox) error { return t.showACL(cmd.Context(), m) })
		},
	}
	boxConfigFlag(cmd, &f)
	return cmd
}

func (t *tool) cmdACLSet() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "set ADDRESS MAILBOX WHO RIGHTS",
		Short: "Give somebody rights to a mailbox",
		Long:  "Give somebody rights to a mailbox in place of those he has; with \"+\" before them in addition to those." + aclHelp,
		Example: `  shoalctl mailbox acl set carol@example.test Projects dave@example.test lrs
  shoalctl mailbox acl set carol@example.test Projects group:team +wit
  shoalctl mailbox acl set carol@example.test Projects -- -dave@example.test w`,
		Args: exactArgs("the owner's address", "the mailbox", "whom", "the rights"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			how, text := sharing.Replace, args[3]
			if rest, ok := strings.CutPrefix(text, "+"); ok {
				how, text = sharing.Add, rest
			} else if rest, ok := strings.CutPrefix(text, "-"); ok {
				how, text = sharing.Take, rest
			}
			rights, err := sharing.ParseRights(text)
			if err != nil {
				return usageError{err}
			}
			return t.withShared(ctx, f, args[0], args[1], func(m *sharedMailbox) error {
				e, err := m.identify(ctx, args[2], how != sharing.Take)
				if err != nil {
					return err
				}
				e.Rights = rights
				if err := m.service.Set(ctx, m.owner, m.account, m.box.ID, e, how, maxACL); err != nil {
					return err
				}
				return t.showACL(ctx, m)
			})
		},
	}
	boxConfigFlag(cmd, &f)
	return cmd
}

func (m *sharedMailbox) identify(ctx context.Context, who string, known bool) (sharing.Entry, error) {
	id, negative, err := m.service.Identify(ctx, who, m.owner.Domain, known)
	if err == nil && id == sharing.UserIdentifier(m.owner.ID) {
		err = usageError{fmt.Errorf("%s is the owner, who has all rights, always", who)}
	}
	return sharing.Entry{Identifier: id, Negative: negative}, err
}

func (t *tool) cmdACLDelete() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:     "delete ADDRESS MAILBOX WHO",
		Short:   "Remove an entry from the access list of a mailbox",
		Long:    "Remove an entry from the access list of a mailbox: WHO has no rights any more from that entry." + aclHelp,
		Example: "  shoalctl mailbox acl delete carol@example.test Projects dave@example.test",
		Args:    exactArgs("the owner's address", "the mailbox", "whom"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return t.withShared(ctx, f, args[0], args[1], func(m *sharedMailbox) error {
				e, err := m.identify(ctx, args[2], false)
				if err != nil {
					return err
				}
				if err := sharing.Forget(ctx, m.account, m.box.ID, e.Identifier, e.Negative); err != nil {
					return err
				}
				return t.showACL(ctx, m)
			})
		},
	}
	boxConfigFlag(cmd, &f)
	return cmd
}

func (t *tool) cmdMailboxPublic() *cobra.Command {
	return group("public", "Make and list accounts of public mailboxes", t.cmdPublicCreate(), t.cmdPublicList())
}

// publicView is an account of public mailboxes as shown.
type publicView struct {
	Address   string   `json:"address"`
	Volume    string   `json:"volume"`
	Mailboxes []string `json:"mailboxes,omitempty"`
}

func (t *tool) cmdPublicCreate() *cobra.Command {
	var f storeFlags
	var n dirclient.NewAccount
	var anyone string
	cmd := &cobra.Command{
		Use:   "create ADDRESS [MAILBOX]...",
		Short: "Make an account of public mailboxes, and mailboxes in it",
		Long: `Make an account of public mailboxes, if there is none yet, and mailboxes in it. Nobody can log in to it. The accounts of its domain
see the mailboxes as "Public Folders/NAME/MAILBOX", where NAME is the address before the @, and its INBOX as
"Public Folders/NAME", as far as the access lists let them. Mail for the address comes into INBOX if anyone has the right p there.
New mailboxes have the access list of the one above them, or of INBOX.`,
		Example: `  shoalctl mailbox public create board@example.test News "Minutes/2026"
  shoalctl mailbox public create archive@example.test --anyone lr`,
		Args: minArgs("the address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			rights, err := sharing.ParseRights(anyone)
			if err != nil {
				return usageError{fmt.Errorf("--anyone: %w", err)}
			}
			n.Address, n.Public, n.Place = args[0], true, t.roomiestVolume
			err = t.withChange(ctx, func(a *dirclient.Admin) error {
				_, err := a.AddAccount(ctx, n)
				if !errors.Is(err, dirclient.ErrExists) {
					return err
				}
				account, err := a.Account(ctx, args[0])
				if err == nil && !account.Public {
					err = fmt.Errorf("%w: %s is an account of somebody", dirclient.ErrExists, args[0])
				}
				return err
			})
			if err != nil {
				return err
			}
			return t.withShared(ctx, f, args[0], mailstore.Inbox, func(m *sharedMailbox) error {
				return t.makePublic(ctx, m, rights, cmd.Flags().Changed("anyone"), args[1:])
			})
		},
	}
	cmd.Flags().StringVar(&n.DisplayName, "name", "", "what is shown as its name (default: the address before the @)")
	cmd.Flags().StringVar(&n.Volume, "volume", "", "volume for the mail (default: the domain's, or the active one with the most free space)")
	cmd.Flags().StringVar(&anyone, "anyone", "lrsp", "rights of all accounts of the domain to INBOX, and so to what is made in it")
	boxConfigFlag(cmd, &f)
	return cmd
}

// makePublic gives anyone rights to INBOX, unless there is an access list already and nothing was said, and makes mailboxes.
func (t *tool) makePublic(ctx context.Context, m *sharedMailbox, rights sharing.Rights, said bool, mailboxes []string) error {
	if said || len(sharing.List(m.list, m.box.ID)) == 0 {
		e := sharing.Entry{Identifier: sharing.Anyone, Rights: rights}
		if err := m.service.Set(ctx, m.owner, m.account, m.box.ID, e, sharing.Replace, maxACL); err != nil {
			return err
		}
	}
	for _, name := range mailboxes {
		list, err := m.account.Listing(ctx)
		if err != nil {
			return err
		}
		above := m.box.ID
		for i := range name {
			if box, ok := list.Mailbox(name[:i]); ok && name[i] == mailstore.Delimiter {
				above = box.ID
			}
		}
		_, err = m.account.Create(ctx, name, mailstore.CreateOptions{Attrs: sharing.Inherited(list, above)})
		if err != nil && !errors.Is(err, mailstore.ErrMailboxExists) {
			return err
		}
	}
	return t.showPublic(ctx, m)
}

func (t *tool) showPublic(ctx context.Context, m *sharedMailbox) error {
	list, err := m.account.Listing(ctx)
	if err != nil {
		return err
	}
	v := publicView{Address: m.owner.Address, Volume: m.owner.Volume}
	for _, box := range list.Mailboxes() {
		v.Mailboxes = append(v.Mailboxes, box.Name)
	}
	return t.show(v, func() {
		t.say("public mailboxes of %s, on %s:", v.Address, v.Volume)
		for _, name := range v.Mailboxes {
			t.say("  %s", printable(name))
		}
	})
}

func (t *tool) cmdPublicList() *cobra.Command {
	return &cobra.Command{
		Use:     "list [DOMAIN]",
		Short:   "List the accounts of public mailboxes of a domain, or of all",
		Example: "  shoalctl mailbox public list example.test",
		Args:    maxOne("a domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				domain := ""
				if len(args) == 1 {
					domain = args[0]
				}
				views := []publicView{}
				err := a.PublicAccounts(cmd.Context(), domain, func(x *dirclient.Account) error {
					views = append(views, publicView{Address: x.Address, Volume: x.Volume})
					return nil
				})
				if err != nil {
					return err
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{v.Address, v.Volume}
					}
					t.table([]string{"ADDRESS", "VOLUME"}, rows)
				})
			})
		},
	}
}
