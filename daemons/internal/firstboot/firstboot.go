// Package firstboot gives a machine its name, network, access, state and configuration from its seed. It runs at each
// boot, before the network; what it writes is the same each time.
//
// A seed is what NoCloud defines: texts named meta-data, user-data and network-config, on a volume with the label cidata,
// or as credentials of systemd (shoal.user-data and so on). user-data is a cloud-config; its key "shoal" holds what the
// role needs (seed.go). docs/images.md describes the keys.
//
// The role's configuration is made from templates that lie on the machine, a tree for each role
// (/usr/share/shoal/templates/<role>/etc/shoal/boxd.hcl gives /etc/shoal/boxd.hcl), so that a new role needs no code here.
//
// Invariants: the configuration of the role is written whole or not at all; a wrong seed names the key and what to write
// instead; secrets are written with mode 0600 and never printed; the private key of a machine that enrols is made on it
// (`shoalctl enrol`, called by shoal-enrol.service); a disk is formatted only if it is blank and was made for that.
//
// Left out on purpose: the rest of cloud-config (packages, users, commands). An image has one role and needs no shell.
package firstboot

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const usage = `usage: firstboot apply            take up the seed of this machine
       firstboot check FILE       say whether a user-data file is good
       firstboot mounts FOLDER... refuse NFS mounts by whose options mail could be lost
`

// Main is the program: its exit code is 0 when all is well, 1 with one sentence on standard error, or 2.
func Main(args []string) int {
	m := &Machine{Root: "/", Out: os.Stdout, Run: run}
	var err error
	switch {
	case len(args) == 1 && args[0] == "apply":
		err = m.Apply()
	case len(args) == 2 && args[0] == "check":
		err = checkFile(args[1])
	case len(args) > 1 && args[0] == "mounts":
		err = m.CheckMounts(args[1:])
	default:
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, "shoal-firstboot:", strings.TrimSuffix(line, "\n"))
		}
		return 1
	}
	return 0
}

// Machine is what is set up.
type Machine struct {
	Root string // "/", or a folder in tests
	Out  io.Writer
	// Run runs a program and returns what it says.
	Run func(name string, args ...string) (string, error)
	// Sources finds the seed; nil: on the volumes of the machine, then in its credentials.
	Sources func() (Texts, string, error)
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

func (m *Machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.Root}, elem...)...)
}

func (m *Machine) say(format string, args ...any) {
	fmt.Fprintf(m.Out, "shoal-firstboot: "+format+"\n", args...)
}

func checkFile(file string) error {
	b, err := readBounded(file)
	if err != nil {
		return err
	}
	u, err := ParseUserData(b)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if u.Shoal == nil {
		return fmt.Errorf("%s: %w", file, errNoRole)
	}
	if err := u.Shoal.Check(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return u.Shoal.checkCredentials(false)
}
