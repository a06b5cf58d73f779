package devcluster

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"shoal/daemons/internal/pki"
)

// Layout is where one service lies: its data folder and its ports. The folder holds
//
//	shoal-data        mark and version of the folder: "shoal-data 1"
//	shoalctl.hcl      how shoalctl reaches the service
//	ca.pem            the CA's certificate, for clients (--cacert)
//	users             addresses and passwords of the demo accounts, mode 0600
//	pki/              the CA's key; certificate and key of each server and of the operator
//	secrets/          passwords of the servers and of the directory's administrator
//	conf/             one configuration per server, and haproxy.cfg: written anew at each start
//	vault1/           the directory; vault2/, vault3/: its shadows
//	volumes/vol01/    the mail
//	queue/            what the switches cannot deliver at once
//	log/              one log per server
//	run/              lock, process ids, HAProxy's sockets
type Layout struct {
	Data     string // absolute
	PortBase int
}

const (
	markFile    = "shoal-data"
	dataVersion = 1
	volumeName  = "vol01"
	suffix      = "o=shoal"
)

// NewLayout checks the port base and makes the path absolute. It touches nothing.
func NewLayout(data string, portBase int) (Layout, error) {
	if portBase < minPortBase || portBase > maxPortBase {
		return Layout{}, fmt.Errorf("port base %d: SHOAL_PORT_BASE must be from %d to %d, because ports up to base+2999 are used and outgoing connections take theirs from 32768 on",
			portBase, minPortBase, maxPortBase)
	}
	abs, err := filepath.Abs(data)
	if err != nil {
		return Layout{}, fmt.Errorf("data folder %s: %w", data, err)
	}
	return Layout{Data: abs, PortBase: portBase}, nil
}

func (l Layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.Data}, parts...)...)
}

func (l Layout) run() string                { return l.path("run") }
func (l Layout) logs() string               { return l.path("log") }
func (l Layout) log(name string) string     { return l.path("log", name+".log") }
func (l Layout) conf(name string) string    { return l.path("conf", name+".hcl") }
func (l Layout) cert(name string) string    { return l.path("pki", name+".crt") }
func (l Layout) key(name string) string     { return l.path("pki", name+".key") }
func (l Layout) secret(name string) string  { return l.path("secrets", name) }
func (l Layout) volume() string             { return l.path("volumes", volumeName) }
func (l Layout) haproxyConf() string        { return l.path("conf", "haproxy.cfg") }
func (l Layout) pidFile(name string) string { return l.path("run", name+".pid") }
func (l Layout) haproxySocket() string      { return l.path("run", "haproxy.sock") }
func (l Layout) usersFile() string          { return l.path("users") }

// CAFile is the certificate that clients of the service trust.
func (l Layout) CAFile() string { return l.path("ca.pem") }

// ClientFile is what shoalctl reads.
func (l Layout) ClientFile() string { return l.path("shoalctl.hcl") }

// claim makes the folder ours, or refuses: a folder with other things in it, or of another version.
func (l Layout) claim() error {
	mark := l.path(markFile)
	text, err := os.ReadFile(mark)
	switch {
	case err == nil:
		var version int
		if _, err := fmt.Sscanf(string(text), "shoal-data %d", &version); err != nil {
			return fmt.Errorf("%s is not readable as the mark of a data folder: %q", mark, text)
		}
		if version != dataVersion {
			return fmt.Errorf("data folder %s is of version %d, this program uses version %d: use the program that made it, or another folder with SHOAL_DATA=<folder>",
				l.Data, version, dataVersion)
		}
	case errors.Is(err, os.ErrNotExist):
		entries, err := os.ReadDir(l.Data)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("data folder: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("%s holds other things and no mark of a data folder of Shoal: name an empty or a new folder with SHOAL_DATA=<folder>", l.Data)
		}
		if err := os.MkdirAll(l.Data, 0o700); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
		if err := pki.WriteFile(mark, fmt.Appendf(nil, "shoal-data %d\n", dataVersion), 0o644); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	default:
		return fmt.Errorf("data folder: %w", err)
	}
	for _, folder := range []string{"pki", "secrets", "conf", "volumes", "log", "run", master.name} {
		if err := os.MkdirAll(l.path(folder), 0o700); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	return nil
}

func sorted[T cmp.Ordered](s []T) []T {
	slices.Sort(s)
	return s
}

// quote writes a text as an HCL string.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{").Replace(s) + `"`
}
