package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/ldif"
)

var scopes = map[string]dirclient.Scope{"base": dirclient.ScopeBase, "one": dirclient.ScopeOne, "sub": dirclient.ScopeSub}

// entryView is an entry as JSON.
type entryView struct {
	DN         string              `json:"dn"`
	Attributes map[string][]string `json:"attributes"`
}

// recordOf makes an entry a content record.
func recordOf(e dirclient.Entry) *ldif.Record {
	rec := &ldif.Record{DN: e.DN}
	for _, a := range e.Attributes {
		at := ldif.Attribute{Name: a.Name}
		for _, v := range a.Values {
			at.Values = append(at.Values, []byte(v))
		}
		rec.Attributes = append(rec.Attributes, at)
	}
	return rec
}

func (t *tool) cmdDirectorySearch() *cobra.Command {
	var base, scope string
	var limit int
	cmd := &cobra.Command{
		Use:   "search [FILTER [ATTRIBUTE...]]",
		Short: "Search the directory, and print what is found as LDIF",
		Long: `Search the directory. FILTER is an LDAP filter (RFC 4515), or just an address or a name, which is looked for
among mail addresses, names of servers and domains. Passwords are never shown. "+" among the attributes shows the
operational ones, "1.1" none.`,
		Example: `  shoalctl directory search alice@example.test
  shoalctl directory search '(shoalAccountStatus=suspended)' mail shoalVolumeName
  shoalctl directory search --base ou=servers,ou=config,o=shoal --scope one '(shoalRole=box)' +`,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, ok := scopes[scope]
			if !ok {
				return usageError{fmt.Errorf("--scope %q: want base, one or sub", scope)}
			}
			filter, attributes := "(objectClass=*)", []string(nil)
			if len(args) > 0 {
				filter, attributes = searchFilter(args[0]), args[1:]
			}
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				found := []entryView{}
				n := 0
				err := a.Search(cmd.Context(), orSuffix(base, a), in, filter, attributes, func(e dirclient.Entry) error {
					if n++; limit > 0 && n > limit {
						return errEnough
					}
					if t.json {
						v := entryView{e.DN, map[string][]string{}}
						for _, at := range e.Attributes {
							v.Attributes[at.Name] = at.Values
						}
						found = append(found, v)
						return nil
					}
					return recordOf(e).Write(t.out)
				})
				if errors.Is(err, errEnough) {
					fmt.Fprintf(t.err, "shoalctl: there are more than %d\n", limit)
					err = nil
				}
				if err != nil {
					return err
				}
				if n == 0 && !t.json {
					return fmt.Errorf("%w: %s", dirclient.ErrNoSuchEntry, filter)
				}
				return t.show(found, func() {})
			})
		},
	}
	cmd.Flags().StringVar(&base, "base", "", "DN below which is searched (default: the whole directory)")
	cmd.Flags().StringVar(&scope, "scope", "sub", "base, one or sub")
	cmd.Flags().IntVar(&limit, "limit", 0, "no more entries than this; 0: all")
	return cmd
}

func orSuffix(base string, a *dirclient.Admin) string {
	if base == "" {
		return a.Suffix()
	}
	return base
}

// searchFilter makes a filter of what somebody types.
func searchFilter(text string) string {
	if strings.HasPrefix(text, "(") {
		return text
	}
	v := escapeFilter(text)
	return "(|(mail=" + v + ")(mailLocalAddress=" + v + ")(associatedDomain=" + v + ")(cn=" + v + ")(uid=" + v + "))"
}

func (t *tool) cmdDirectoryExport() *cobra.Command {
	var base string
	var operational bool
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the directory, or a part of it, as LDIF",
		Long: `Write the directory, or a part of it, as LDIF to a new file (mode 0600) or to standard output, over LDAP. Nobody can
read passwords and keys, so they are not in it: to save a directory whole, use backup.`,
		Example: `  shoalctl directory export directory.ldif
  shoalctl directory export --base associatedDomain=example.test,ou=domains,o=shoal > example.ldif`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{errors.New("export takes one file")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			out := io.Writer(t.out)
			if len(args) == 1 {
				f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				out = f
			}
			n := 0
			err = t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				n, err = exportTree(cmd.Context(), a, orSuffix(base, a), operational, out)
				return err
			})
			if err != nil || len(args) == 0 {
				return err
			}
			return t.show(map[string]any{"entries": n, "file": args[0]}, func() { t.say("%d entries written to %s", n, args[0]) })
		},
	}
	cmd.Flags().StringVar(&base, "base", "", "DN of the part (default: the whole directory)")
	cmd.Flags().BoolVar(&operational, "operational", false, "operational attributes as well")
	return cmd
}

// exportTree writes a subtree, each level after the one above, so that it can be added again in this order.
func exportTree(ctx context.Context, a *dirclient.Admin, base string, operational bool, out io.Writer) (n int, err error) {
	if _, err := io.WriteString(out, "version: 1\n\n"); err != nil {
		return 0, err
	}
	attributes := []string{"*"}
	if operational {
		attributes = append(attributes, "+")
	}
	err = a.Search(ctx, base, dirclient.ScopeBase, "(objectClass=*)", attributes, func(e dirclient.Entry) error {
		n++
		return recordOf(e).Write(out)
	})
	if err != nil {
		return n, err
	}
	for above := []string{base}; len(above) > 0; {
		var next []string
		for _, dn := range above {
			err := a.Search(ctx, dn, dirclient.ScopeOne, "(objectClass=*)", append(slices.Clone(attributes), "hasSubordinates"), func(e dirclient.Entry) error {
				n++
				rec := recordOf(e)
				rec.Attributes = slices.DeleteFunc(rec.Attributes, func(at ldif.Attribute) bool {
					if !strings.EqualFold(at.Name, "hasSubordinates") {
						return false
					}
					if len(at.Values) > 0 && string(at.Values[0]) == "TRUE" {
						next = append(next, e.DN)
					}
					return !operational
				})
				return rec.Write(out)
			})
			if err != nil {
				return n, err
			}
		}
		above = next
	}
	return n, nil
}
