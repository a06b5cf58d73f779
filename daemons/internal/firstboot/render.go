package firstboot

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// templates is the folder of templates, a tree for each role.
const templates = "/usr/share/shoal/templates"

// view is what templates see: the seed, and what follows from it.
type view struct {
	*Seed
	Identity  string // the folder of the machine's certificate
	PublicCrt string
	PublicKey string
}

// functions of templates: text in quotes as HCL and most others have it, lists of them, and what lists need.
var functions = template.FuncMap{
	"q":        quote,
	"list":     quoteAll,
	"join":     func(list []string, by string) string { return strings.Join(list, by) },
	"hostport": net.JoinHostPort,
}

// quote is text in quotes; ${ and %{ would be templates of HCL.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "${", "$${", "%{", "%%{").Replace(s) + `"`
}

func quoteAll(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func family(list []string, four bool) []string {
	var some []string
	for _, s := range list {
		host, _, _ := strings.Cut(s, "/")
		if a, err := netip.ParseAddr(host); err == nil && a.Is4() == four {
			some = append(some, s)
		}
	}
	return some
}

// file is a file to write.
type file struct {
	text string
	mode fs.FileMode
}

// render makes the files of a role, by path. A template that gives nothing but white space gives no file.
func (m *Machine) render(s *Seed) (map[string]file, error) {
	v := view{Seed: s, Identity: identity, PublicCrt: identity + "/server.crt", PublicKey: identity + "/server.key"}
	if s.PublicTLS != nil {
		v.PublicCrt, v.PublicKey = identity+"/public.crt", identity+"/public.key"
	}
	base := m.path(templates, s.Role)
	if _, err := os.Stat(base); err != nil {
		return nil, fmt.Errorf("shoal.role: this image is not for role %s: %w", s.Role, err)
	}
	files := map[string]file{}
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := readBounded(path)
		if err != nil {
			return err
		}
		t, err := template.New(d.Name()).Funcs(functions).Option("missingkey=error").Parse(string(text))
		if err != nil {
			return fmt.Errorf("template %s: %w", path, err)
		}
		var out bytes.Buffer
		if err := t.Execute(&out, v); err != nil {
			return fmt.Errorf("template %s: %w", path, err)
		}
		if strings.TrimSpace(out.String()) != "" {
			files[strings.TrimPrefix(path, base)] = file{out.String(), 0o644}
		}
		return nil
	})
	return files, err
}
