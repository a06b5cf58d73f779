package recipe

import (
	"fmt"
	"path/filepath"
)

// Role is an image: what is installed and enabled on top of the base, and what must be true of the result.
type Role struct {
	Name     string   `hcl:"name,label"`
	Summary  string   `hcl:"summary"`
	Packages []string `hcl:"packages"` // Debian's, and those of this repository
	Enable   []string `hcl:"enable,optional"`
	Mask     []string `hcl:"mask,optional"`

	// Ports listen once a seed was taken up, beside those of the base; VMPorts where there is a kernel of the machine's own.
	Ports   []int `hcl:"ports,optional"`
	VMPorts []int `hcl:"vm_ports,optional"`
	// Active are units that must run then, VMUnits may fail in a container. Daemons are ours: their exposure is bounded.
	Active  []string `hcl:"active,optional"`
	VMUnits []string `hcl:"vm_units,optional"`
	Daemons []string `hcl:"daemons,optional"`
	// LimitMB bounds the compressed image; 0: no bound.
	LimitMB int `hcl:"limit_mb,optional"`

	Dir string
}

// Base is the name of what all roles are built on.
const Base = "base"

// Roles reads all roles below a folder; the base is the first.
func Roles(dir string) ([]*Role, error) {
	var base *Role
	var all []*Role
	err := each(dir, "role.hcl", func(file string) error {
		var f struct {
			Roles []*Role `hcl:"role,block"`
		}
		if err := decode(file, &f); err != nil {
			return err
		}
		if len(f.Roles) != 1 {
			return fmt.Errorf("%s: it must hold one role block, not %d", file, len(f.Roles))
		}
		r := f.Roles[0]
		r.Dir = filepath.Dir(file)
		if r.Name != filepath.Base(r.Dir) {
			return fmt.Errorf("%s: role %q: the name must be that of its folder", file, r.Name)
		}
		for _, p := range r.Packages {
			if !packageName.MatchString(p) {
				return fmt.Errorf("%s: package %q is no name of a package", file, p)
			}
		}
		for _, u := range append(append(append([]string{}, r.Enable...), r.Mask...), r.Daemons...) {
			if !unitName.MatchString(u) {
				return fmt.Errorf("%s: unit %q is no name of a unit", file, u)
			}
		}
		if err := checkPorts(append(append([]int{}, r.Ports...), r.VMPorts...)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if r.Name == Base {
			base = r
		} else {
			all = append(all, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if base == nil {
		return nil, fmt.Errorf("%s: there is no role %s", dir, Base)
	}
	return append([]*Role{base}, all...), nil
}
