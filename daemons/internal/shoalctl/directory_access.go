package shoalctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/dirschema"
)

// errNotAllowed is the exit of a question that is answered with no.
var errNotAllowed = errors.New("not allowed")

func (t *tool) cmdDirectoryAccess() *cobra.Command {
	var q access.Question
	var exit bool
	cmd := &cobra.Command{
		Use:   "access --who WHO --to ENTRY",
		Short: "May WHO do that to ENTRY, and why: which rule says so, and where it stands",
		Long: `The directory itself decides, as it does for a request. WHO is an address, the name of a server, a DN or "anonymous"; ENTRY is an address, a domain or a DN.
Without --attr the question is about the entry itself. docs/directory-access.md tells how rules are written.`,
		Example: `  shoalctl directory access --who alice@example.org --to bob@example.org --attr telephoneNumber
  shoalctl directory access --who box1 --to example.org --attr shoalMigrationSecret --right read
  shoalctl directory access --who anonymous --to example.org --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Who == "" || q.To == "" {
				return usageError{errors.New("name --who and --to")}
			}
			q.Version = 1
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				var answer access.Answer
				if err := askAccess(cmd, a, &q, &answer); err != nil {
					return err
				}
				if err := t.show(&answer, func() { t.sayAnswer(&answer) }); err != nil {
					return err
				}
				if exit && !answer.Allowed {
					return errNotAllowed
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Who, "who", "", `address, name of a server, DN, or "anonymous"`)
	f.StringVar(&q.To, "to", "", "address, domain or DN of the entry")
	f.StringVar(&q.Attribute, "attr", "entry", `attribute, or "entry", or "children" for what lies directly under it`)
	f.StringVar(&q.Right, "right", "read", strings.Join(access.Words(), ", "))
	f.BoolVar(&exit, "exit-code", false, "end with an error if it is not allowed")
	cmd.AddCommand(t.cmdAccessList(), t.cmdAccessCheck(), t.cmdAccessSet())
	return cmd
}

// askAccess sends the question to the directory.
func askAccess(cmd *cobra.Command, a *dirclient.Admin, q *access.Question, into any) error {
	value, err := json.Marshal(q)
	if err != nil {
		return err
	}
	answer, err := a.Extended(cmd.Context(), access.OID, value)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("the directory's answer: %w", err)
	}
	return nil
}

func (t *tool) sayAnswer(a *access.Answer) {
	verdict := "NO"
	if a.Allowed {
		verdict = "YES"
	}
	t.say("%s: %s of %s of %s by %s", verdict, a.Right, a.Attribute, printable(a.To), printable(a.Who))
	t.say("rights: %s", a.Rights)
	if len(a.Roles) > 0 {
		t.say("roles: %s", printable(strings.Join(a.Roles, " ")))
	}
	for _, s := range a.Why {
		at := s.Part + " rule"
		if s.Entry != "" {
			at = "rule at " + s.Entry
		}
		by := s.By
		if by == "" {
			by = "names nobody that this is"
		}
		t.say("  %s: %s", printable(at), printable(cut(s.Rule, 160)))
		t.say("      %s: gives %s", printable(by), printable(s.Gives))
	}
	if len(a.Why) == 0 && !a.Allowed {
		t.say("  no rule gives anything")
	}
	if a.Note != "" {
		t.say("  %s", printable(a.Note))
	}
}

func (t *tool) cmdAccessList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List all rules, in the order in which they are asked",
		Example: "  shoalctl directory access list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withAdmin(cmd.Context(), func(a *dirclient.Admin) error {
				var list []access.Listed
				if err := askAccess(cmd, a, &access.Question{Version: 1, List: true}, &list); err != nil {
					return err
				}
				return t.show(list, func() {
					last := ""
					for _, l := range list {
						head := map[string]string{"service": "the service's own rules: all that match count", "default": "default rules, after all others"}[l.Part]
						if l.Entry != "" {
							head = l.Entry
						}
						if head != last {
							t.say("%s", printable(head))
							last = head
						}
						t.say("    %s", printable(l.Rule))
						if l.Problem != "" {
							t.say("        DENIES EVERYTHING, because it cannot be read: %s", printable(l.Problem))
						}
					}
				})
			})
		},
	}
}

func (t *tool) cmdAccessCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Read rules from a file, and say what is wrong with them",
		Long:  `One rule a paragraph: rules are separated by empty lines. Without FILE, or with "-", from standard input. No directory is asked: attributes of an own schema are not known.`,
		Example: `  shoalctl directory access check rules.txt
  echo '{10}to * by users read' | shoalctl directory access check`,
		RunE: func(cmd *cobra.Command, args []string) error {
			rules, err := t.rulesOf(args)
			if err != nil {
				return err
			}
			schema, err := dirschema.Default()
			if err != nil {
				return err
			}
			lang := &access.Language{Schema: schema}
			numbers := map[int]bool{}
			for _, text := range rules {
				r, err := lang.Parse(text)
				if err != nil {
					return fmt.Errorf("%s: %w", cut(printable(text), 60), err)
				}
				if numbers[r.Number] {
					return fmt.Errorf("two rules have the number %d", r.Number)
				}
				numbers[r.Number] = true
			}
			return t.show(map[string]int{"rules": len(rules)}, func() { t.say("%d rules, all can be read", len(rules)) })
		},
	}
}

// maxRulesFile bounds a file of rules.
const maxRulesFile = 4 << 20

// rulesOf reads rules from a file: paragraphs.
func (t *tool) rulesOf(args []string) (rules []string, err error) {
	var in io.Reader = t.in
	if len(args) > 0 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxRulesFile))
	if err != nil {
		return nil, err
	}
	for paragraph := range strings.SplitSeq(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n\n") {
		if p := strings.TrimSpace(paragraph); p != "" {
			rules = append(rules, p)
		}
	}
	return rules, nil
}

func (t *tool) cmdAccessSet() *cobra.Command {
	var file string
	var add, clear bool
	cmd := &cobra.Command{
		Use:   "set DN [RULE...]",
		Short: "Give an entry its rules, in the place of those that it has",
		Long:  `The directory refuses a rule that it cannot read, and says where the mistake is. With --add the entry keeps the rules that it has; with --clear it has none afterwards.`,
		Example: `  shoalctl directory access set ou=domains,o=shoal '{10}to * by dn="uid=audit,associatedDomain=example.org,ou=domains,o=shoal" read by * break'
  shoalctl directory access set o=shoal --file rules.txt
  shoalctl directory access set o=shoal --clear`,
		Args: minArgs("the DN of the entry"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dn, rules := args[0], args[1:]
			if file != "" {
				more, err := t.rulesOf([]string{file})
				if err != nil {
					return err
				}
				rules = append(rules, more...)
			}
			if (len(rules) == 0) != clear {
				return usageError{errors.New("name rules, a --file of rules, or --clear")}
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				if add {
					have, err := a.Access(cmd.Context(), dn)
					if err != nil {
						return err
					}
					rules = append(slices.Clone(have), rules...)
				}
				if err := a.SetAccess(cmd.Context(), dn, rules); err != nil {
					return err
				}
				return t.show(map[string]any{"entry": dn, "rules": rules}, func() { t.say("%s has %d rules", printable(dn), len(rules)) })
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", `file with rules, separated by empty lines; "-" for standard input`)
	cmd.Flags().BoolVar(&add, "add", false, "keep the rules that the entry has")
	cmd.Flags().BoolVar(&clear, "clear", false, "take all rules of the entry away")
	return cmd
}
