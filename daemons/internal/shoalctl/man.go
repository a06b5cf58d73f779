package shoalctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// cmdMan writes the manual pages of all commands, from the same texts as --help. It is for `make man`.
func (t *tool) cmdMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages of shoalctl into a folder",
		Hidden: true,
		Args:   exactArgs("the folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			date := time.Now()
			if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
				date = time.Unix(seconds, 0)
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return eachCommand(cmd.Root(), func(c *cobra.Command) error {
				page := manPage(c, t.version, date.UTC().Format("2006-01-02"))
				return os.WriteFile(filepath.Join(args[0], manName(c)+".8"), []byte(page), 0o644)
			})
		},
	}
}

// eachCommand visits a command and all below it that are shown.
func eachCommand(cmd *cobra.Command, f func(*cobra.Command) error) error {
	if err := f(cmd); err != nil {
		return err
	}
	for _, child := range cmd.Commands() {
		if !child.Hidden && child.Name() != "help" {
			if err := eachCommand(child, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage writes one page in the language of man(7).
func manPage(cmd *cobra.Command, version, date string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(".TH %s 8 %s \"Shoal %s\" \"Shoal\"", strings.ToUpper(manName(cmd)), date, version)
	p(".SH NAME")
	p("%s \\- %s", roff(manName(cmd)), roff(strings.ToLower(cmd.Short[:1])+cmd.Short[1:]))
	p(".SH SYNOPSIS")
	rest := strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath())
	p(".B %s", roff(cmd.CommandPath()))
	if rest = strings.TrimSpace(strings.Replace(rest, "[flags]", "[options]", 1)); rest != "" {
		p("%s", roff(rest))
	}
	p(".SH DESCRIPTION")
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	if !cmd.HasParent() {
		long, _, _ = strings.Cut(long, exitCodesHelp)
	}
	manText(&b, long)
	if children := shown(cmd); len(children) > 0 {
		p(".SH COMMANDS")
		for _, child := range children {
			p(".TP")
			p(".B %s", roff(child.Name()))
			p("%s. See", roff(child.Short))
			p(".BR %s (8).", roff(manName(child)))
		}
	}
	manFlags(&b, "OPTIONS", cmd.NonInheritedFlags())
	manFlags(&b, "OPTIONS OF ALL COMMANDS", cmd.InheritedFlags())
	if cmd.Example != "" {
		p(".SH EXAMPLES")
		p(".nf")
		for line := range strings.Lines(cmd.Example) {
			p("%s", roff(strings.TrimRight(line, "\n")))
		}
		p(".fi")
	}
	if !cmd.HasParent() {
		p(".SH ENVIRONMENT")
		for _, v := range [][2]string{{"SHOAL_DATA", "the data folder, as with --data"}, {"SHOAL_PORT_BASE", "what shoalctl up adds to every well-known port"},
			{"XDG_STATE_HOME", "where unfinished imports are noted, below shoal/import (default: ~/.local/state)"}} {
			p(".TP\n.B %s\n%s", v[0], roff(v[1]))
		}
		p(".SH FILES")
		p(".TP\n.I %s\n%s", roff(systemConfig), "the configuration on an operator's own machine")
		p(".TP\n.I var/shoalctl.hcl\nthe configuration that shoalctl up writes, in its data folder")
		p(".SH EXIT STATUS")
		_, codes, _ := strings.Cut(exitCodesHelp, "\n")
		p(".nf")
		for line := range strings.Lines(codes) {
			p("%s", roff(strings.TrimRight(line, "\n")))
		}
		p(".fi")
	} else if cmd.Name() != "doctor" {
		p(".SH EXIT STATUS\nAs described in\n.BR shoalctl (8).")
	}
	p(".SH SEE ALSO")
	if cmd.HasParent() {
		p(".BR %s (8)", roff(manName(cmd.Parent())))
	} else {
		p(".BR switchd (8),\n.BR boxd (8),\n.BR vaultd (8)")
	}
	return b.String()
}

func shown(cmd *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, child := range cmd.Commands() {
		if !child.Hidden && child.Name() != "help" {
			all = append(all, child)
		}
	}
	return all
}

// manText writes paragraphs. Lines that begin with two blanks or a dash stay as they are.
func manText(b *strings.Builder, text string) {
	verbatim := false
	set := func(on bool) {
		if on != verbatim {
			b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[on])
		}
		verbatim = on
	}
	gap := false
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			gap = true
			continue
		}
		set(strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t"))
		if gap {
			b.WriteString(".PP\n")
			gap = false
		}
		b.WriteString(roff(line) + "\n")
	}
	set(false)
}

func manFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		fmt.Fprintf(b, ".TP\n.B %s\n", roff(strings.TrimSpace(name+" "+kind)))
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" && !strings.Contains(usage, "default") {
			usage += " (default: " + f.DefValue + ")"
		}
		b.WriteString(roff(usage) + "\n")
	})
}

// roff writes a text so that troff shows it as it is.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "~", `\(ti`, "^", `\(ha`, "`", `\(ga`, "'", `\(aq`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
