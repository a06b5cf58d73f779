package shoalctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/ldif"
)

func (t *tool) cmdDirectoryApply() *cobra.Command {
	var dry, yes, exact bool
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Apply LDIF, after a preview of what it changes",
		Long: `Apply a file of LDIF ("-" for standard input) and show first what it changes. Change records (changetype) are made as
they are. An entry without changetype is added, or the entry that is there becomes like it in the attributes that the
file names; --exact removes the others. Operational attributes in the file are passed over. The first change that
fails ends it; those before stay made.`,
		Example: `  shoalctl directory apply --dry-run changes.ldif
  shoalctl directory apply changes.ldif`,
		Args: exactArgs("a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := t.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error {
				p, err := readPlan(cmd.Context(), a, in, exact)
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				return t.apply(cmd.Context(), a, p, dry, yes || args[0] == "-")
			})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show what would be changed, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&exact, "exact", false, "remove attributes that an entry of the file does not name")
	return cmd
}

func (t *tool) cmdDirectoryEdit() *cobra.Command {
	var dry, yes bool
	cmd := &cobra.Command{
		Use:   "edit DN|ADDRESS|NAME...",
		Short: "Change entries in an editor, as LDIF",
		Long: `Open entries in the editor that VISUAL or EDITOR names, as LDIF. When it ends, what was changed is shown, and made after
a question. A removed line removes its value; a new record adds an entry; a removed record changes nothing. Passwords
are not shown, and stay as they are unless a userPassword is written. If somebody else changed the same value meanwhile,
nothing of that entry is changed.`,
		Example: `  shoalctl directory edit alice@example.test
  EDITOR=nano shoalctl directory edit cn=box1,ou=servers,ou=config,o=shoal`,
		Args: minArgs("a DN, an address or a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withChange(cmd.Context(), func(a *dirclient.Admin) error { return t.edit(cmd.Context(), a, args, dry, yes) })
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show what would be changed, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// find reads the entry of a DN, or the one entry of an address or name.
func findEntry(ctx context.Context, a *dirclient.Admin, what string) (*dirclient.Entry, error) {
	if strings.Contains(what, "=") && !strings.HasPrefix(what, "(") {
		e, err := entryAt(ctx, a, what)
		if err == nil && e == nil {
			err = fmt.Errorf("%w: %s", dirclient.ErrNoSuchEntry, what)
		}
		return e, err
	}
	var found []dirclient.Entry
	err := a.Search(ctx, a.Suffix(), dirclient.ScopeSub, searchFilter(what), []string{"*"}, func(e dirclient.Entry) error {
		if found = append(found, e); len(found) > 1 {
			return fmt.Errorf("%s is both %s and %s: give the DN", what, found[0].DN, found[1].DN)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: %s", dirclient.ErrNoSuchEntry, what)
	}
	return &found[0], nil
}

func (t *tool) edit(ctx context.Context, a *dirclient.Admin, names []string, dry, yes bool) error {
	before := ldif.AppendComment(nil, "Change, save, and end the editor: what is different is shown before it is made.")
	before = append(before, '\n')
	edited := map[string]bool{}
	for _, name := range names {
		e, err := findEntry(ctx, a, name)
		if err != nil {
			return err
		}
		before = recordOf(*e).Append(before)
		edited[strings.ToLower(e.DN)] = true
	}
	after, err := t.inEditor(ctx, before)
	if err != nil {
		return err
	}
	if bytes.Equal(before, after) {
		return t.show([]*step{}, func() { t.say("nothing to change") })
	}
	p, err := readPlan(ctx, a, bytes.NewReader(after), true)
	if err != nil {
		return err
	}
	for _, s := range p.Steps {
		if s.Kind == "modify" && !edited[strings.ToLower(s.DN)] {
			return fmt.Errorf("%s is there already and was not among the entries to edit: nothing was changed", s.DN)
		}
	}
	return t.apply(ctx, a, p, dry, yes)
}

// maxEdited bounds what an editor gives back.
const maxEdited = 64 << 20

// inEditor lets the user change a text.
func (t *tool) inEditor(ctx context.Context, text []byte) ([]byte, error) {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if editor == "" {
		editor = "vi"
	}
	folder, err := os.MkdirTemp("", "shoalctl-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	name := filepath.Join(folder, "entries.ldif")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return nil, err
	}
	// The variable may hold arguments, as for other programs; the file name is one of its own.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", editor+` "$1"`, "sh", name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.in, t.err, t.err
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("editor %s: %w", editor, err)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEdited+1))
	if err == nil && len(b) > maxEdited {
		err = errors.New("the edited file is too large")
	}
	return b, err
}
