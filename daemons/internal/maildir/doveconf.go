package maildir

import (
	"fmt"
	"strings"
)

// Settings are what Dovecot's configuration says that the tree does not.
type Settings struct {
	SpecialUse map[string][]string // by the name of the mailbox as clients see it, levels separated by "/": without backslash
	UIDLFormat string              // pop3_uidl_format; empty: not set
}

// ParseSettings reads what `doveconf -n` prints.
//
//	text    = *( name SP "=" SP value LF / name [SP label] SP "{" LF text "}" LF )
//
// Of a namespace's mailboxes special_use is taken, of protocol pop3 pop3_uidl_format. Everything else is passed over.
func ParseSettings(b []byte) (*Settings, error) {
	s := &Settings{SpecialUse: map[string][]string{}}
	type block struct{ kind, label string }
	var stack []block
	separators := map[int]string{} // of the namespace at that depth
	type found struct {
		name  string
		uses  []string
		depth int
	}
	var open []found // mailboxes of the present namespace
	for n, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line == "}":
			if len(stack) == 0 {
				return nil, fmt.Errorf("line %d: \"}\" that ends nothing: %w", n+1, ErrFormat)
			}
			if stack[len(stack)-1].kind == "namespace" {
				for _, f := range open {
					sep := separators[f.depth]
					if sep == "" { // Maildir's own is a dot; LAYOUT=fs has a slash
						s.SpecialUse[f.name] = f.uses
						sep = "."
					}
					s.SpecialUse[strings.ReplaceAll(f.name, sep, "/")] = f.uses
				}
				open = nil
			}
			stack = stack[:len(stack)-1]
		case strings.HasSuffix(line, "{"):
			kind, label, _ := strings.Cut(strings.TrimSpace(strings.TrimSuffix(line, "{")), " ")
			if len(stack) == 16 {
				return nil, fmt.Errorf("line %d: too many levels: %w", n+1, ErrFormat)
			}
			stack = append(stack, block{kind, unquote(strings.TrimSpace(label))})
			if kind == "namespace" {
				separators[len(stack)] = ""
			}
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				continue
			}
			key, value = strings.TrimSpace(key), unquote(strings.TrimSpace(value))
			depth := len(stack)
			switch {
			case key == "pop3_uidl_format" && (depth == 0 || stack[depth-1].kind == "protocol"):
				s.UIDLFormat = value
			case key == "separator" && depth > 0 && stack[depth-1].kind == "namespace":
				separators[depth] = value
			case key == "special_use" && depth > 1 && stack[depth-1].kind == "mailbox" && stack[depth-2].kind == "namespace":
				var uses []string
				for _, u := range strings.Fields(value) {
					uses = append(uses, strings.TrimPrefix(u, `\`))
				}
				open = append(open, found{stack[depth-1].label, uses, depth - 1})
			}
		}
	}
	if len(stack) > 0 {
		return nil, fmt.Errorf("block %s has no end: %w", stack[len(stack)-1].kind, ErrFormat)
	}
	return s, nil
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return strings.ReplaceAll(strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`), `\\`, `\`)
	}
	return s
}

// commonNames are what folders of a special use are usually called, the best first.
var commonNames = []struct {
	use   string
	names []string
}{
	{"Drafts", []string{"Drafts", "Draft", "Entwürfe"}},
	{"Sent", []string{"Sent", "Sent Messages", "Sent Items", "Sent Mail", "Gesendet"}},
	{"Trash", []string{"Trash", "Deleted Messages", "Deleted Items", "Papierkorb"}},
	{"Junk", []string{"Junk", "Spam", "Junk E-mail"}},
	{"Archive", []string{"Archive", "Archives", "Archiv"}},
}

// SpecialUses gives the special uses of a tree's folders: what the configuration says, and for a use that it gives to none
// of them the folder that is usually called so. At most one folder has a use.
func SpecialUses(folders []Folder, s *Settings) map[string][]string {
	out, taken := map[string][]string{}, map[string]bool{}
	there := map[string]bool{}
	for _, f := range folders {
		there[f.Name] = true
	}
	for _, f := range folders {
		if s == nil {
			break
		}
		for _, u := range s.SpecialUse[f.Name] {
			if !taken[u] {
				out[f.Name], taken[u] = append(out[f.Name], u), true
			}
		}
	}
	for _, c := range commonNames {
		for _, n := range c.names {
			if there[n] && !taken[c.use] && out[n] == nil {
				out[n], taken[c.use] = []string{c.use}, true
			}
		}
	}
	return out
}
