package firstboot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/vfs"
)

// identity is where the machine's certificate lies: on the data disk, so that it survives a new image.
const identity = "/var/lib/shoal/identity"

// authority is where the CA lies on a master that gives certificates to other machines.
const authority = "/var/lib/shoal/enrol/ca"

// owners are the users whose daemons read the machine's key, by role; others' is root.
var owners = map[string]string{
	"box": "642:642", "switch": "641:641", "vault": "643:643", "webmail": "644:644", "provision": "645:645", "lb": "646:646", "storage": "0:0",
}

// Apply takes up the seed of the machine. What everybody needs (name, network, access) is taken up even when the role's
// part is wrong, so that an operator gets in; the role's part is taken up whole or not at all.
func (m *Machine) Apply() error {
	role, err := m.imageRole()
	if err != nil {
		return err
	}
	if err := m.mountData(role == "storage"); err != nil {
		return err
	}
	texts, from, err := m.sources()
	if err != nil {
		return err
	}
	done := m.path("/var/lib/shoal/seeded")
	if len(texts) == 0 {
		if _, err := os.Stat(done); err == nil {
			m.say("no seed: the machine stays as it is")
			return nil
		}
		return errors.New("this machine has no seed: attach a volume labelled cidata with user-data, or give the credential shoal.user-data")
	}
	m.say("seed from %s", from)
	u, err := ParseUserData(texts["user-data"])
	if err != nil {
		return err
	}
	if err := m.applyBase(u, texts); err != nil {
		return err
	}
	s := u.Shoal
	if s == nil {
		return errNoRole
	}
	if token := strings.TrimSpace(string(texts["enrol-token"])); token != "" {
		s.EnrolToken = token
	}
	if s.Name == "" {
		s.Name, _, _ = strings.Cut(u.Hostname, ".")
	}
	if s.Address == "" {
		s.Address = u.Hostname
	}
	if err := s.Check(); err != nil {
		return err
	}
	if role != "" && s.Role != role {
		return fmt.Errorf("shoal.role: the seed is for a %s, this image is a %s: use the image of that role", s.Role, role)
	}
	_, err = os.Stat(m.path(identity, "server.crt"))
	if err := s.checkCredentials(err == nil); err != nil {
		return err
	}
	if err := m.applyRole(s, err == nil); err != nil {
		return err
	}
	if err := m.write("/var/lib/shoal/seeded", file{s.Role + " " + s.Name + "\n", 0o644}); err != nil {
		return err
	}
	m.say("%s %s is configured", s.Role, s.Name)
	return nil
}

// imageRole is what the image says of itself; "" on a machine that is none.
func (m *Machine) imageRole() (string, error) {
	b, err := readBounded(m.path("/usr/share/shoal/role"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// applyBase sets name, access and network.
func (m *Machine) applyBase(u *UserData, texts Texts) error {
	var meta struct {
		LocalHostname string `yaml:"local-hostname"`
	}
	if err := yaml.Unmarshal(texts["meta-data"], &meta); err != nil {
		return errors.New("meta-data: it is no mapping of keys to values")
	}
	if u.Hostname == "" {
		if u.Hostname = meta.LocalHostname; u.Hostname != "" && !hostName.MatchString(u.Hostname) {
			return fmt.Errorf("meta-data: local-hostname %q is no host name", u.Hostname)
		}
	}
	files := map[string]file{}
	if h := u.Hostname; h != "" {
		short, _, _ := strings.Cut(h, ".")
		names := h
		if short != h {
			names += " " + short
		}
		files["/etc/hostname"] = file{h + "\n", 0o644}
		files["/etc/hosts"] = file{fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost\n", names), 0o644}
		if _, err := os.Stat(m.path("/proc/sys/kernel/hostname")); err == nil {
			if err := os.WriteFile(m.path("/proc/sys/kernel/hostname"), []byte(h), 0o644); err != nil {
				m.say("host name: %v", err)
			}
		}
	}
	if len(u.SSHAuthorizedKeys) > 0 {
		files["/root/.ssh/authorized_keys"] = file{strings.Join(u.SSHAuthorizedKeys, "\n") + "\n", 0o600}
	}
	if text := texts["network-config"]; len(text) > 0 {
		networks, resolv, err := ParseNetwork(text)
		if err != nil {
			return err
		}
		for name, text := range networks {
			files["/etc/systemd/network/"+name] = file{text, 0o644}
		}
		if resolv != "" {
			files["/etc/resolv.conf"] = file{resolv, 0o644}
		}
	}
	return m.writeAll(files)
}

// applyRole writes the configuration of the role, and what its credentials need.
func (m *Machine) applyRole(s *Seed, enrolled bool) error {
	files, err := m.render(s)
	if err != nil {
		return err
	}
	if len(s.Peers) > 0 {
		files["/etc/shoal/firewall.d/90-seed.nft"] = file{firewallText(s.Peers), 0o644}
	} else {
		files["/etc/shoal/firewall.d/90-seed.nft"] = file{"# The seed names no peers: certificates alone decide.\nadd element inet shoal peers4 { 0.0.0.0/0 }\nadd element inet shoal peers6 { ::/0 }\n", 0o644}
	}
	volumes := s.Box.Volumes
	daemon := "boxd"
	if s.Role == "switch" {
		volumes, daemon = nil, "switchd"
		if s.Switch.Queue != nil {
			volumes = []Volume{*s.Switch.Queue}
		}
	}
	var mounts, units []string
	for _, v := range volumes {
		if v.Source == "" {
			continue
		}
		name, text, err := mountUnit(v)
		if err != nil {
			return err
		}
		files["/etc/systemd/system/"+name] = file{text, 0o644}
		mounts, units = append(mounts, "/srv/shoal/"+v.Name), append(units, name)
	}
	if len(mounts) > 0 {
		// The daemon starts when its volumes are there, mounted as the store needs it.
		files["/etc/systemd/system/"+daemon+".service.d/10-volumes.conf"] = file{fmt.Sprintf(
			"# Written by first boot: changes are lost.\n[Unit]\nRequiresMountsFor=%[1]s\n\n[Service]\nExecStartPre=/usr/lib/shoal/firstboot mounts %[1]s\n",
			strings.Join(mounts, " ")), 0o644}
	}
	if err := m.credentials(s, enrolled, files); err != nil {
		return err
	}
	if err := m.writeAll(files); err != nil {
		return err
	}
	if c := s.Credentials; c != nil || s.PublicTLS != nil {
		owner := owners[s.Role]
		for _, name := range []string{"server.key", "directory.secret", "public.key"} {
			if _, ok := files[identity+"/"+name]; ok {
				if _, err := m.Run("chown", owner, m.path(identity, name)); err != nil {
					return err
				}
			}
		}
	}
	// The manager has read its units before this: mounts and drop-ins are new to it. What the daemon needs was decided before they
	// were there, so the mounts are asked for as well; the daemon's start waits for them.
	if len(units) > 0 {
		for _, command := range [][]string{{"daemon-reload"}, append([]string{"start", "--no-block"}, units...)} {
			if _, err := m.Run("systemctl", command...); err != nil {
				m.say("%v", err)
			}
		}
	}
	return m.localFolders(s)
}

// credentials adds what the machine is known by: given files, or what shoal-enrol.service needs to fetch them.
func (m *Machine) credentials(s *Seed, enrolled bool, files map[string]file) error {
	if s.PublicTLS != nil {
		files[identity+"/public.crt"] = file{s.PublicTLS.Cert, 0o644}
		files[identity+"/public.key"] = file{s.PublicTLS.Key, 0o600}
	}
	if c := s.Credentials; c != nil {
		files[identity+"/ca.crt"] = file{c.CA, 0o644}
		files[identity+"/server.crt"] = file{c.Cert, 0o644}
		files[identity+"/server.key"] = file{c.Key, 0o600}
		if c.DirectoryPassword != "" {
			files[identity+"/directory.secret"] = file{c.DirectoryPassword + "\n", 0o600}
		}
	}
	if s.enrols() && !enrolled {
		owner := owners[s.Role]
		if owner == "" {
			owner = "0:0"
		}
		files["/run/shoal/enrol.token"] = file{s.EnrolToken + "\n", 0o600}
		files["/run/shoal/enrol.env"] = file{fmt.Sprintf("SHOAL_URL='%s'\nSHOAL_CA_SHA256='%s'\nSHOAL_ROLE='%s'\nSHOAL_NAME='%s'\nSHOAL_OWNER='%s'\n",
			strings.ReplaceAll(s.EnrolURL, "'", ""), s.CASHA256, s.Role, s.Name, owner), 0o600}
	}
	if s.Vault.RootPasswordHash != "" {
		files["/etc/shoal/root.secret"] = file{s.Vault.RootPasswordHash + "\n", 0o640}
	}
	if s.Vault.RootPassword != "" {
		files["/etc/shoal/root.secret"] = file{s.Vault.RootPassword + "\n", 0o640}
	}
	if a := s.Vault.Authority; a != nil {
		files[authority+"/ca.crt"] = file{s.Credentials.CA, 0o644}
		files[authority+"/ca.key"] = file{a.CAKey, 0o600}
	}
	return nil
}

// localFolders makes what lies on the data disk: a queue without a source, the folders of a file server.
func (m *Machine) localFolders(s *Seed) error {
	if q := s.Switch.Queue; q != nil && q.Source == "" {
		path := m.path("/var/lib/shoal/switch/queue")
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		if err := queue.Init(vfs.OS(), path, q.ID); err != nil {
			return fmt.Errorf("shoal.switch.queue: %w", err)
		}
		if _, err := m.Run("chown", "-R", owners["switch"], m.path("/var/lib/shoal/switch")); err != nil {
			return err
		}
	}
	if s.Role == "storage" {
		// The volumes, and what the kernel remembers of its clients: both are mounted to their places from here.
		for _, dir := range []string{"export", "nfsdcld"} {
			if err := os.MkdirAll(m.path("/var/lib/shoal", dir), 0o755); err != nil {
				return err
			}
		}
	}
	if s.Vault.Authority != nil {
		// The agent's alone: the directory's daemon, which everybody speaks to, cannot read it.
		if _, err := m.Run("chown", owners["lb"], m.path(authority, "ca.key")); err != nil {
			return err
		}
	}
	if s.Vault.RootPasswordHash != "" || s.Vault.RootPassword != "" {
		if _, err := m.Run("chown", "0:643", m.path("/etc/shoal/root.secret")); err != nil {
			return err
		}
	}
	return nil
}

// firewallText lets in the peers, and nobody else, at the ports for peers.
func firewallText(peers []string) string {
	text := "# Written by first boot: changes are lost.\n"
	if some := family(peers, true); len(some) > 0 {
		text += fmt.Sprintf("add element inet shoal peers4 { %s }\n", strings.Join(some, ", "))
	}
	if some := family(peers, false); len(some) > 0 {
		text += fmt.Sprintf("add element inet shoal peers6 { %s }\n", strings.Join(some, ", "))
	}
	return text
}

// writeAll writes files in order; the first that fails ends it.
func (m *Machine) writeAll(files map[string]file) error {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := m.write(name, files[name]); err != nil {
			return err
		}
	}
	return nil
}

// write replaces a file by its new content, unless it has that already.
func (m *Machine) write(name string, f file) error {
	path := m.path(name)
	if have, err := os.ReadFile(path); err == nil && string(have) == f.text {
		return os.Chmod(path, f.mode)
	}
	folder := fs.FileMode(0o755)
	if strings.HasPrefix(name, "/root/") || strings.HasPrefix(name, "/run/shoal/") {
		folder = 0o700
	}
	if err := os.MkdirAll(filepath.Dir(path), folder); err != nil {
		return err
	}
	// Its own name, beside it: after a crash there is the old file or the new one. resolv.conf may be a link to nowhere.
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(f.text), f.mode); err != nil {
		return err
	}
	if err := os.Chmod(tmp, f.mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
