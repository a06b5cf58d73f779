package shoalctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/migrate"
)

// migrationView is a domain's migration as shown.
type migrationView struct {
	Domain    string          `json:"domain"`
	Server    string          `json:"server"`
	TLS       string          `json:"tls"`
	Master    string          `json:"master,omitempty"`
	Login     string          `json:"login"`
	State     string          `json:"state"`
	Create    bool            `json:"create_accounts"`
	Accounts  int             `json:"accounts"`
	Passwords int             `json:"passwords_to_come"`
	Mail      int             `json:"mail_to_come"`
	Details   []migratingView `json:"details,omitempty"`
	Silent    []silence       `json:"silent,omitempty"`
}

// migratingView is an account of it.
type migratingView struct {
	Address  string            `json:"address"`
	Waits    []string          `json:"to_come"`
	Progress *migrate.Progress `json:"progress,omitempty"`
	key      string
}

func (t *tool) cmdMigration() *cobra.Command {
	return group("migration", "Bring domains here from other IMAP servers, with passwords and mail",
		t.cmdMigrationStart(), t.cmdMigrationAdd(), t.cmdMigrationList(), t.cmdMigrationShow(), t.cmdMigrationPause(), t.cmdMigrationFinish())
}

func (t *tool) cmdMigrationStart() *cobra.Command {
	var m dirclient.Migration
	var startTLS, local bool
	var passwordFile string
	cmd := &cobra.Command{
		Use:   "start DOMAIN",
		Short: "Begin a domain's migration, go on after a pause, or change its settings",
		Long: `Begins to check first logins at an old IMAP server and to copy its mail. Without --server a migration that was paused goes on.

With --master, whose password stands in --master-password-file, mail is copied before anybody has logged in. The directory keeps that password
until the migration is finished, readable by boxes only. Without it each account is copied from its owner's first login on.`,
		Example: "  shoalctl migration start example.org --server imap.old.example:993 --create\n" +
			"  shoalctl migration start example.org --server imap.old.example:143 --starttls --master admin --master-password-file master.secret\n" +
			"  shoalctl migration start example.org",
		Args: exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				d, err := a.Domain(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if m.Server == "" {
					if d.Migration == nil {
						return usageError{fmt.Errorf("%s is not being migrated: name the old server with --server", d.Name)}
					}
					m = *d.Migration
				} else {
					m.TLS, m.Login = dirclient.MigrationTLSImplicit, dirclient.MigrationLoginAddress
					if startTLS {
						m.TLS = dirclient.MigrationStartTLS
					}
					if local {
						m.Login = dirclient.MigrationLoginLocal
					}
					if m.User != "" {
						text, err := passwordFromFile(passwordFile)
						if err != nil {
							return err
						}
						m.Secret = text
					}
				}
				m.State = dirclient.MigrationActive
				if err := a.SetMigration(cmd.Context(), d.Name, &m); err != nil {
					return err
				}
				return t.show(viewMigration(d.Name, &m), func() { t.say("%s is being migrated from %s", d.Name, m.Server) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&m.Server, "server", "", "host:port of the old server's IMAP service")
	f.BoolVar(&startTLS, "starttls", false, "the port begins without TLS (default: with TLS)")
	f.BoolVar(&local, "local-part", false, "the old server knows its users without the domain")
	f.StringVar(&m.User, "master", "", "user of the old server who may open every mailbox (SASL PLAIN with an authorization identity)")
	f.StringVar(&passwordFile, "master-password-file", "", "file with the password of that user, one line")
	f.BoolVar(&m.Create, "create", false, "whom the old server knows gets an account at the first login")
	return cmd
}

// passwordFromFile reads one line.
func passwordFromFile(path string) (string, error) {
	if path == "" {
		return "", usageError{errors.New("--master wants --master-password-file")}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" || len(line) > 1024 {
		return "", fmt.Errorf("%s: want one line of at most 1024 bytes", path)
	}
	return line, nil
}

func (t *tool) cmdMigrationAdd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "add ADDRESS...",
		Short: "Add accounts whose password and mail come from the old server, or mark accounts that are there",
		Long: `Adds an account for each address, without a password: the first login brings it. An account that is there gets its mail
copied, and keeps its password.`,
		Example: "  shoalctl migration add carol@example.org dave@example.org\n  shoalctl migration add --file addresses.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				f, err := os.Open(file)
				if err != nil {
					return err
				}
				defer f.Close()
				for lines := bufio.NewScanner(f); lines.Scan(); {
					if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
						args = append(args, line)
					}
				}
			}
			if len(args) == 0 {
				return usageError{errors.New("name addresses, or --file")}
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				added, marked := 0, 0
				for _, address := range args {
					_, err := a.AddAccount(cmd.Context(), dirclient.NewAccount{Address: address, Migrating: []string{dirclient.MigratePassword, dirclient.MigrateMail}, Place: t.roomiestVolume})
					if errors.Is(err, dirclient.ErrExists) {
						var acc *dirclient.Account
						if acc, err = a.Account(cmd.Context(), address); err == nil && !acc.Migrates(dirclient.MigrateMail) {
							err = a.SetMigrating(cmd.Context(), acc.DN, append(slices.Clone(acc.Migrating), dirclient.MigrateMail)...)
							marked++
						}
					} else if err == nil {
						added++
					}
					if err != nil {
						return fmt.Errorf("%s: %w", address, err)
					}
				}
				return t.show(map[string]int{"added": added, "marked": marked}, func() { t.say("%d accounts added, %d marked", added, marked) })
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file with one address a line")
	return cmd
}

func viewMigration(name string, m *dirclient.Migration) migrationView {
	return migrationView{Domain: name, Server: m.Server, TLS: m.TLS, Master: m.User, Login: m.Login, State: m.State, Create: m.Create}
}

// migrationOf reads a domain's migration with its accounts.
func migrationOf(ctx context.Context, a *dirclient.Admin, d *dirclient.Domain) (migrationView, error) {
	v := viewMigration(d.Name, d.Migration)
	err := a.Accounts(ctx, d.Name, func(acc *dirclient.Account) error {
		v.Accounts++
		if acc.Migrates(dirclient.MigratePassword) {
			v.Passwords++
		}
		if acc.Migrates(dirclient.MigrateMail) {
			v.Mail++
		}
		if len(acc.Migrating) > 0 {
			v.Details = append(v.Details, migratingView{Address: acc.Address, Waits: acc.Migrating, key: acc.Volume + "/" + acc.ID})
		}
		return nil
	})
	return v, err
}

func (t *tool) cmdMigrationList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the domains that are being migrated",
		Example: "  shoalctl migration list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				views := []migrationView{}
				var domains []*dirclient.Domain
				err := a.Domains(cmd.Context(), func(d *dirclient.Domain) error {
					if d.Migration != nil {
						domains = append(domains, d)
					}
					return nil
				})
				if err != nil {
					return err
				}
				for _, d := range domains {
					v, err := migrationOf(cmd.Context(), a, d)
					if err != nil {
						return err
					}
					v.Details = nil
					views = append(views, v)
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						rows[i] = []string{v.Domain, v.Server, v.State, strconv.Itoa(v.Accounts), strconv.Itoa(v.Passwords), strconv.Itoa(v.Mail)}
					}
					t.table([]string{"DOMAIN", "FROM", "STATE", "ACCOUNTS", "PASSWORDS TO COME", "MAIL TO COME"}, rows)
				})
			})
		},
	}
}

func (t *tool) cmdMigrationShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show DOMAIN",
		Short:   "Show how far a domain's accounts are",
		Example: "  shoalctl migration show example.org",
		Args:    exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				v, err := t.migration(cmd.Context(), a, args[0])
				if err != nil {
					return err
				}
				if err := t.show(v, func() { t.printMigration(&v) }); err != nil {
					return err
				}
				if len(v.Silent) > 0 {
					return fmt.Errorf("%w: no box tells how far the accounts are: %s", errUnreachable, v.Silent[0].Problem)
				}
				return nil
			})
		},
	}
}

// migration reads a migration, with what the boxes know of its accounts.
func (t *tool) migration(ctx context.Context, a *dirclient.Admin, domain string) (migrationView, error) {
	d, err := a.Domain(ctx, domain)
	if err != nil {
		return migrationView{}, err
	}
	if d.Migration == nil {
		return migrationView{}, fmt.Errorf("%w: %s is not being migrated", dirclient.ErrNoSuchEntry, d.Name)
	}
	v, err := migrationOf(ctx, a, d)
	if err != nil {
		return v, err
	}
	boxes, err := a.Servers(ctx, "box")
	if err != nil {
		return v, err
	}
	c, err := t.load()
	if err != nil {
		return v, err
	}
	k, err := c.control()
	if err != nil {
		return v, err
	}
	defer k.close()
	for part := range slices.Chunk(v.Details, 100) {
		if v.Silent = t.askMigration(ctx, k, boxes, part); len(v.Silent) > 0 {
			break
		}
	}
	return v, nil
}

// askMigration asks boxes, one after the other, until one knows each account.
func (t *tool) askMigration(ctx context.Context, k *control, boxes []dirclient.Server, part []migratingView) (silent []silence) {
	for _, b := range boxes {
		query := url.Values{}
		for i := range part {
			if part[i].Progress == nil {
				query.Add("account", part[i].key)
			}
		}
		if len(query) == 0 {
			return nil
		}
		silent = append(silent, k.each([]dirclient.Server{b}, func(_ int, address string) error {
			var answer map[string]migrate.Progress
			if err := k.call(ctx, "GET", address, "/v1/migration?"+query.Encode(), &answer); err != nil {
				return err
			}
			for i := range part {
				if p, ok := answer[part[i].key]; ok && (p.Version > 0 || p.Error == "") {
					part[i].Progress = &p
				}
			}
			return nil
		})...)
	}
	if slices.ContainsFunc(part, func(v migratingView) bool { return v.Progress == nil }) {
		return silent
	}
	return nil
}

func (t *tool) printMigration(v *migrationView) {
	t.say("domain    %s", printable(v.Domain))
	t.say("from      %s (%s)", printable(v.Server), v.TLS)
	t.say("master    %s", orDash(v.Master))
	t.say("state     %s", v.State)
	t.say("accounts  %d, %d with a password to come, %d with mail to come", v.Accounts, v.Passwords, v.Mail)
	if len(v.Details) == 0 {
		return
	}
	rows := make([][]string, len(v.Details))
	for i, d := range v.Details {
		row := []string{d.Address, strings.Join(d.Waits, " "), "", "", "", ""}
		if p := d.Progress; p != nil && p.Version > 0 {
			row[2], row[3], row[4], row[5] = p.Phase, fmt.Sprintf("%d of %d", p.Copied, p.Of), bytesText(p.Bytes), cut(p.Error, 60)
		}
		rows[i] = row
	}
	t.say("")
	t.table([]string{"ACCOUNT", "TO COME", "PHASE", "MESSAGES", "SIZE", "PROBLEM"}, rows)
}

// setState changes the state of a domain's migration.
func setState(ctx context.Context, a *dirclient.Admin, domain, state string) (*dirclient.Domain, error) {
	d, err := a.Domain(ctx, domain)
	if err != nil {
		return nil, err
	}
	if d.Migration == nil {
		return nil, fmt.Errorf("%w: %s is not being migrated", dirclient.ErrNoSuchEntry, d.Name)
	}
	m := *d.Migration
	m.State = state
	return d, a.SetMigration(ctx, d.Name, &m)
}

func (t *tool) cmdMigrationPause() *cobra.Command {
	return &cobra.Command{
		Use:     "pause DOMAIN",
		Short:   "Copy nothing until the migration is started again; logins are still checked",
		Example: "  shoalctl migration pause example.org",
		Args:    exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				d, err := setState(cmd.Context(), a, args[0], dirclient.MigrationPaused)
				if err != nil {
					return err
				}
				return t.show(map[string]string{"paused": d.Name}, func() { t.say("the migration of %s is paused", d.Name) })
			})
		},
	}
}

// finishPoll is how often the directory is asked what is left.
const finishPoll = time.Second

func (t *tool) cmdMigrationFinish() *cobra.Command {
	var force bool
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "finish DOMAIN",
		Short: "Copy what is left, once mail goes here, and forget the old server",
		Long: `Gives each account a last round and then ends the migration. Do this when mail for the domain comes here and clients use this
service: what the old server gets later is not copied.

Accounts whose owner has never logged in have no password, and without a master user their mail has not come: they are named, and the migration
goes on, unless --force ends it. An interrupted command goes on when it is given again.`,
		Example: "  shoalctl migration finish example.org\n  shoalctl migration finish example.org --force",
		Args:    exactArgs("the domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return t.withChange(ctx, func(a *dirclient.Admin) error {
				d, err := setState(ctx, a, args[0], dirclient.MigrationFinishing)
				if err != nil {
					return err
				}
				d.Migration.State = dirclient.MigrationFinishing
				begin, last := time.Now(), -1
				var v migrationView
				for {
					if v, err = migrationOf(ctx, a, d); err != nil {
						return err
					}
					if v.Mail == 0 || time.Since(begin) > within {
						break
					}
					if v.Mail != last {
						last = v.Mail
						if t.json {
							_ = json.NewEncoder(t.err).Encode(map[string]any{"progress": "last round", "accounts_left": v.Mail})
						} else {
							fmt.Fprintf(t.err, "last round: %d accounts left\n", v.Mail)
						}
					}
					if err := clock.Sleep(ctx, clock.System(), finishPoll); err != nil {
						return err
					}
				}
				if (v.Mail > 0 || v.Passwords > 0) && !force {
					names := make([]string, 0, 10)
					for _, w := range v.Details[:min(len(v.Details), 10)] {
						names = append(names, w.Address+" ("+strings.Join(w.Waits, ", ")+")")
					}
					return fmt.Errorf("of %d accounts something is still to come: %s; --force ends the migration without it", len(v.Details), strings.Join(names, ", "))
				}
				for _, w := range v.Details {
					acc, err := a.Account(ctx, w.Address)
					if err != nil {
						return err
					}
					if err := a.SetMigrating(ctx, acc.DN); err != nil {
						return err
					}
				}
				if err := a.SetMigration(ctx, d.Name, nil); err != nil {
					return err
				}
				return t.show(map[string]any{"finished": d.Name, "accounts": v.Accounts, "left_out": v.Details}, func() {
					t.say("the migration of %s is finished: %d accounts", d.Name, v.Accounts)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "end it although something is still to come for some accounts")
	cmd.Flags().DurationVar(&within, "within", time.Hour, "how long to wait for the last rounds")
	return cmd
}
