// Package recipe reads what is built, as data: one package.hcl for each Debian package, one role.hcl for each
// image. A new daemon or role is one more folder, and no line of Go.
//
//	images/packages/<name>/package.hcl   and files/, as they lie on the target
//	images/<role>/role.hcl               and files/, as they lie on the target
//
// Invariants: a recipe that is read is complete (unknown attributes, missing files and ports out of range are errors with
// file and line); the order of lists is that of the file, the order of folders is that of their names.
//
// Left out on purpose: conditions, loops and variables. What differs between two machines of a role is in their seeds.
package recipe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// Package is a Debian package.
type Package struct {
	Name        string `hcl:"name,label"`
	Section     string `hcl:"section"`
	Summary     string `hcl:"summary"`
	Description string `hcl:"description"`
	// Depends and the like are in Debian's syntax; $version stands for the version that is built.
	Depends    []string `hcl:"depends,optional"`
	Recommends []string `hcl:"recommends,optional"`
	Suggests   []string `hcl:"suggests,optional"`
	// Programs are built from daemons/<label>.
	Programs []Program `hcl:"program,block"`
	// Man are patterns of manual pages, in docs/man, images/man, or made by shoalctl.
	Man []string `hcl:"man,optional"`
	// Units of files/ that the maintainer scripts look after; those with sockets are also started.
	Units   []string `hcl:"units,optional"`
	Sockets []Socket `hcl:"socket,block"`
	// OpenPorts are reached by everybody, PeerPorts by the peers that the seed names.
	OpenPorts []int `hcl:"open_ports,optional"`
	PeerPorts []int `hcl:"peer_ports,optional"`
	// Sysusers and Tmpfiles: the package has such files for systemd.
	Sysusers   bool `hcl:"sysusers,optional"`
	Tmpfiles   bool `hcl:"tmpfiles,optional"`
	Completion bool `hcl:"completion,optional"`
	// Lintian are findings that are meant: "tag [path]".
	Lintian []string `hcl:"lintian,optional"`

	Dir string // its folder
}

// Program is a program of this repository.
type Program struct {
	Name string `hcl:"name,label"`
	To   string `hcl:"to,optional"` // on the target; default /usr/sbin/<name>
}

// Target is where the program lies on the target.
func (p Program) Target() string {
	if p.To != "" {
		return p.To
	}
	return "/usr/sbin/" + p.Name
}

// Socket is a listener that systemd binds and hands over under its name.
type Socket struct {
	Name string `hcl:"name,label"`
	Port int    `hcl:"port"`
}

// Service is the unit that the sockets of the package belong to: its first.
func (p *Package) Service() string { return p.Units[0] }

var (
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	unitName    = regexp.MustCompile(`^[a-zA-Z0-9@_.-]+\.(service|socket|timer|path|target|mount|automount)$`)
)

// Packages reads all packages below a folder, by name.
func Packages(dir string) ([]*Package, error) {
	var all []*Package
	err := each(dir, "package.hcl", func(file string) error {
		var f struct {
			Packages []*Package `hcl:"package,block"`
		}
		if err := decode(file, &f); err != nil {
			return err
		}
		if len(f.Packages) != 1 {
			return fmt.Errorf("%s: it must hold one package block, not %d", file, len(f.Packages))
		}
		p := f.Packages[0]
		p.Dir = filepath.Dir(file)
		if err := p.check(); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, p)
		return nil
	})
	return all, err
}

func (p *Package) check() error {
	if !packageName.MatchString(p.Name) || p.Name != filepath.Base(p.Dir) {
		return fmt.Errorf("package %q: the name must be that of its folder, in lower case", p.Name)
	}
	if len(p.Summary) > 70 || strings.HasSuffix(p.Summary, ".") {
		return fmt.Errorf("package %s: summary must have at most 70 characters and no full stop", p.Name)
	}
	for _, u := range p.Units {
		if !unitName.MatchString(u) {
			return fmt.Errorf("package %s: unit %q is no name of a unit", p.Name, u)
		}
		if _, err := os.Stat(filepath.Join(p.Dir, "files/lib/systemd/system", u)); err != nil {
			return fmt.Errorf("package %s: unit %q: %w", p.Name, u, err)
		}
	}
	if len(p.Sockets) > 0 && len(p.Units) == 0 {
		return fmt.Errorf("package %s: sockets need the unit that they belong to: name it first in units", p.Name)
	}
	var ports []int
	for _, s := range p.Sockets {
		ports = append(ports, s.Port)
	}
	return checkPorts(append(append(ports, p.OpenPorts...), p.PeerPorts...))
}

func checkPorts(ports []int) error {
	for _, port := range ports {
		if port < 1 || port > 65535 {
			return fmt.Errorf("port %d: a port is a number from 1 to 65535", port)
		}
	}
	return nil
}

// each calls f with every <dir>/<name>/<file> that exists, by name.
func each(dir, file string, f func(string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("recipes: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name(), file)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := f(path); err != nil {
			return err
		}
	}
	return nil
}

// decode reads an HCL file; errors name file and line.
func decode(file string, into any) error {
	parsed, diags := hclparse.NewParser().ParseHCLFile(file)
	if diags.HasErrors() {
		return diags
	}
	if diags := gohcl.DecodeBody(parsed.Body, nil, into); diags.HasErrors() {
		return diags
	}
	return nil
}

// Files lists what lies below a folder, by paths that begin with /: regular files and links, in order. A folder
// that does not exist has none.
func Files(dir string) ([]string, error) {
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == dir {
			return fs.SkipAll
		}
		if err != nil || d.IsDir() {
			return err
		}
		all = append(all, strings.TrimPrefix(path, dir))
		return nil
	})
	slices.Sort(all)
	if err != nil {
		return nil, fmt.Errorf("files of %s: %w", dir, err)
	}
	return all, nil
}
