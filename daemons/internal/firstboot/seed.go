package firstboot

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// UserData is the part of a cloud-config that counts here; its other keys are passed over.
type UserData struct {
	Hostname          string   `yaml:"hostname"`
	SSHAuthorizedKeys []string `yaml:"ssh_authorized_keys"`
	Shoal             *Seed    `yaml:"-"`
}

// Seed is the key "shoal" of user-data. Unknown keys are errors.
type Seed struct {
	// Role must be the role of the image, Name the name of the server (default: the first label of the host name).
	Role string `yaml:"role"`
	Name string `yaml:"name"`
	// Suffix is the top of the directory; default o=shoal.
	Suffix string `yaml:"suffix"`

	// How the machine gets its certificate: it enrols with a one-time token, or is given credentials (for machines that
	// are set up by hand).
	EnrolURL    string       `yaml:"enrol_url"`
	EnrolToken  string       `yaml:"enrol_token"`
	CASHA256    string       `yaml:"ca_sha256"`
	Credentials *Credentials `yaml:"credentials"`

	Directory struct {
		URIs   []string `yaml:"uris"`
		BindDN string   `yaml:"bind_dn"`
	} `yaml:"directory"`
	// Balancers send a PROXY header on the public listeners; none: nobody does. Peers may reach the ports that are for
	// servers and operators; none: everybody may, and certificates alone decide.
	Balancers []string `yaml:"balancers"`
	Peers     []string `yaml:"peers"`
	// PublicTLS is shown to clients; without it they see the machine's own certificate.
	PublicTLS *struct {
		Cert string `yaml:"cert"`
		Key  string `yaml:"key"`
	} `yaml:"public_tls"`
	// Address is what others call this machine; default: the host name.
	Address string `yaml:"address"`

	Box    Box    `yaml:"box"`
	Switch Switch `yaml:"switch"`
	Vault  Vault  `yaml:"vault"`
	LB     LB     `yaml:"lb"`
	Filter Filter `yaml:"filter"`
	// Settings are for roles that have no key of their own: their templates know the names.
	Settings map[string]string `yaml:"settings"`
}

// Credentials are PEM texts, and the password of the server's directory entry.
type Credentials struct {
	CA                string `yaml:"ca"`
	Cert              string `yaml:"cert"`
	Key               string `yaml:"key"`
	DirectoryPassword string `yaml:"directory_password"`
}

// Box is what a box needs.
type Box struct {
	Volumes []Volume `yaml:"volumes"`
}

// Volume is a volume or a queue: where it is mounted from, host:/path. Without a source it is a folder of the data disk.
type Volume struct {
	Name    string `yaml:"name"`
	ID      string `yaml:"id"`
	Source  string `yaml:"source"`
	Options string `yaml:"options"`
}

// Switch is what a switch needs.
type Switch struct {
	LMTP      []string `yaml:"lmtp"`
	SmartHost string   `yaml:"smart_host"`
	Queue     *Volume  `yaml:"queue"`
}

// Vault is what a vault needs: a master has the administrator's password or its hash, a shadow its masters, and the hash
// where it may be promoted.
type Vault struct {
	RootPassword     string     `yaml:"root_password"`
	RootPasswordHash string     `yaml:"root_password_hash"`
	ShadowOf         []string   `yaml:"shadow_of"`
	Authority        *Authority `yaml:"authority"`
}

// Authority makes the master the authority for enrolment too. Its CA's certificate is credentials.ca; the administrator's
// password itself is needed to make its entry in the directory.
type Authority struct {
	CAKey string `yaml:"ca_key"` // PEM
}

// LB is what a balancer needs beside its agent: the addresses that it shares with the others.
type LB struct {
	VRRP []struct {
		Interface string   `yaml:"interface"`
		ID        int      `yaml:"id"`
		Priority  int      `yaml:"priority"`
		Peers     []string `yaml:"peers"`
		Addresses []string `yaml:"addresses"`
	} `yaml:"vrrp"`
}

// Filter is what a filter needs.
type Filter struct {
	// Forward are resolvers to ask; none: the name servers of the world.
	Forward []string `yaml:"forward"`
}

// Bounds and forms.
const (
	maxText    = 1 << 20
	maxEntries = 1000
)

var (
	errNoRole  = errors.New("user-data has no key shoal: write shoal: {role: box, name: box1, ...}")
	serverName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,14}$`)
	hostName   = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,62})(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,62}))*$`)
	volumeName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	roleName   = regexp.MustCompile(`^[a-z]{2,15}$`)
	uuidForm   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	nfsSource  = regexp.MustCompile(`^(\[[0-9a-fA-F:]+\]|[a-zA-Z0-9.-]+):(/[a-zA-Z0-9._/-]*)$`)
	ifaceName  = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,15}$`)
)

// ParseUserData reads a user-data text: "#cloud-config" and YAML, of which JSON is a part.
func ParseUserData(text []byte) (*UserData, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("user-data: larger than %d bytes", maxText)
	}
	if !bytes.HasPrefix(text, []byte("#cloud-config")) {
		return nil, errors.New("user-data: it must begin with the line #cloud-config")
	}
	var u UserData
	var node struct {
		Shoal yaml.Node `yaml:"shoal"`
	}
	if err := yaml.Unmarshal(text, &u); err != nil {
		return nil, fmt.Errorf("user-data: %w", err)
	}
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, fmt.Errorf("user-data: %w", err)
	}
	if u.Hostname != "" && (len(u.Hostname) > 253 || !hostName.MatchString(u.Hostname)) {
		return nil, fmt.Errorf("user-data: hostname %q is no host name", u.Hostname)
	}
	for i, k := range u.SSHAuthorizedKeys {
		if strings.ContainsAny(k, "\n\r\x00") || len(strings.Fields(k)) < 2 {
			return nil, fmt.Errorf("user-data: ssh_authorized_keys[%d]: it must be one line: type and key", i)
		}
	}
	if node.Shoal.IsZero() {
		return &u, nil
	}
	// A decoder that refuses unknown keys reads texts, not nodes.
	again, err := yaml.Marshal(&node.Shoal)
	if err != nil {
		return nil, fmt.Errorf("user-data: shoal: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(again))
	d.KnownFields(true)
	u.Shoal = &Seed{}
	if err := d.Decode(u.Shoal); err != nil {
		return nil, fmt.Errorf("user-data: shoal: %s", seedMistake(err))
	}
	if u.Shoal.Name == "" {
		u.Shoal.Name, _, _ = strings.Cut(u.Hostname, ".")
	}
	if u.Shoal.Address == "" {
		u.Shoal.Address = u.Hostname
	}
	if u.Shoal.Suffix == "" {
		u.Shoal.Suffix = "o=shoal"
	}
	return &u, nil
}

// seedMistake says what a decoder found in the words of the seed, without the values: they may be secrets.
func seedMistake(err error) string {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return "it is no mapping of keys to values"
	}
	var all []string
	for _, e := range te.Errors {
		_, e, _ = strings.Cut(e, ": ")
		if name, _, ok := strings.Cut(e, " not found in type "); ok {
			all = append(all, "there is no key "+strings.TrimPrefix(name, "field "))
			continue
		}
		if _, want, ok := strings.Cut(e, " into "); ok {
			all = append(all, "a value is of the wrong type: wanted "+strings.ReplaceAll(want, "firstboot.", ""))
			continue
		}
		all = append(all, "it is no mapping of keys to values")
	}
	return strings.Join(all, "; ")
}

// Check says what is wrong with a seed: the first thing, with what to write instead.
func (s *Seed) Check() error {
	switch {
	case !roleName.MatchString(s.Role):
		return fmt.Errorf("shoal.role: %q: write the role of the image: box, switch, vault, lb, storage, filter", s.Role)
	case !serverName.MatchString(s.Name):
		return fmt.Errorf("shoal.name: %q: a server's name is a to z, 0 to 9 and hyphens, at most 15, such as box1", s.Name)
	case strings.ContainsAny(s.Suffix, "\n\"\\") || !strings.Contains(s.Suffix, "="):
		return fmt.Errorf("shoal.suffix: %q is no distinguished name", s.Suffix)
	case s.Address != "" && !hostName.MatchString(s.Address) && net.ParseIP(s.Address) == nil:
		return fmt.Errorf("shoal.address: %q is neither a host name nor an address", s.Address)
	case s.PublicTLS != nil && (!isPEM(s.PublicTLS.Cert) || !isPEM(s.PublicTLS.Key)):
		return errors.New("shoal.public_tls: cert and key must be PEM texts")
	}
	for _, n := range []struct {
		key  string
		list []string
	}{{"balancers", s.Balancers}, {"peers", s.Peers}} {
		if err := checkNetworks("shoal."+n.key, n.list); err != nil {
			return err
		}
	}
	for _, u := range append(append([]string{}, s.Directory.URIs...), s.Vault.ShadowOf...) {
		p, err := url.Parse(u)
		if err != nil || p.Scheme != "ldap" && p.Scheme != "ldaps" || p.Host == "" {
			return fmt.Errorf("shoal: %q is no URI of a directory server: write ldaps://host:636", u)
		}
	}
	if slices.Contains([]string{"box", "switch"}, s.Role) && len(s.Directory.URIs) == 0 {
		return fmt.Errorf("shoal.directory.uris: a %s needs the directory: write [\"ldaps://vault1.example.net:636\"]", s.Role)
	}
	return s.checkRole()
}

func (s *Seed) checkRole() error {
	switch s.Role {
	case "box":
		if len(s.Box.Volumes) == 0 || len(s.Box.Volumes) > maxEntries {
			return errors.New("shoal.box.volumes: a box serves volumes: write [{name: vol01, id: ..., source: \"storage1:/vol01\"}]")
		}
		for i, v := range s.Box.Volumes {
			key := fmt.Sprintf("shoal.box.volumes[%d]", i)
			if err := v.check(key); err != nil {
				return err
			}
			if v.Source == "" {
				return fmt.Errorf("%s.source: every box mounts every volume: write host:/path", key)
			}
		}
		if s.Address == "" {
			return errors.New("shoal.address: other boxes must know where to send hints: write the name or address of this machine")
		}
	case "switch":
		if len(s.Switch.LMTP) == 0 {
			return errors.New("shoal.switch.lmtp: where are the boxes? Write [\"box.example.net:24\"]")
		}
		for _, a := range s.Switch.LMTP {
			if err := checkAddress("shoal.switch.lmtp", a); err != nil {
				return err
			}
		}
		if s.Switch.SmartHost != "" {
			if err := checkAddress("shoal.switch.smart_host", s.Switch.SmartHost); err != nil {
				return err
			}
		}
		if q := s.Switch.Queue; q != nil {
			if q.Name == "" {
				q.Name = "queue"
			}
			return q.check("shoal.switch.queue")
		}
	case "vault":
		shadow, password := len(s.Vault.ShadowOf) > 0, s.Vault.RootPassword
		switch hash := s.Vault.RootPasswordHash; {
		case shadow && (password != "" || s.Vault.Authority != nil):
			return errors.New("shoal.vault: root_password and authority are the master's, shadow_of a shadow's: give one of them")
		case password != "" && hash != "":
			return errors.New("shoal.vault: root_password and root_password_hash are two ways to the same end: give one of them")
		case strings.ContainsAny(password, "\r\n") || strings.HasPrefix(password, "{"):
			return errors.New("shoal.vault.root_password: it must be one line that does not begin with {")
		case s.Vault.Authority != nil && (password == "" || !isPEM(s.Vault.Authority.CAKey) || s.Credentials == nil):
			return errors.New("shoal.vault.authority: it needs ca_key (PEM), shoal.credentials, and root_password by which its entry is made")
		case password != "":
		case (!shadow || hash != "") && !strings.HasPrefix(hash, "{ARGON2}"):
			return errors.New("shoal.vault.root_password_hash: a master needs the hash of the administrator's password, which begins with {ARGON2}$argon2id$")
		}
	case "lb":
		for i, v := range s.LB.VRRP {
			key := fmt.Sprintf("shoal.lb.vrrp[%d]", i)
			switch {
			case !ifaceName.MatchString(v.Interface):
				return fmt.Errorf("%s.interface: %q is no name of an interface", key, v.Interface)
			case v.ID < 1 || v.ID > 255:
				return fmt.Errorf("%s.id: %d: a virtual router has an id from 1 to 255", key, v.ID)
			case v.Priority < 1 || v.Priority > 254:
				return fmt.Errorf("%s.priority: %d: write 1 to 254, the highest has the addresses", key, v.Priority)
			case len(v.Addresses) == 0 || len(v.Addresses) > 20:
				return fmt.Errorf("%s.addresses: 1 to 20 addresses, of one family", key)
			}
			for _, a := range v.Addresses {
				if _, err := netip.ParsePrefix(a); err != nil {
					return fmt.Errorf("%s.addresses: %q: write address/length", key, a)
				}
			}
			for _, a := range v.Peers {
				if _, err := netip.ParseAddr(a); err != nil {
					return fmt.Errorf("%s.peers: %q is no address", key, a)
				}
			}
		}
	case "filter":
		if len(s.Peers) == 0 {
			return errors.New("shoal.peers: milter and scanner know no passwords: name the addresses of the switches")
		}
		for _, a := range s.Filter.Forward {
			if _, err := netip.ParseAddr(a); err != nil {
				return fmt.Errorf("shoal.filter.forward: %q is no address", a)
			}
		}
	}
	return nil
}

// check says what is wrong with a volume.
func (v Volume) check(key string) error {
	switch {
	case !volumeName.MatchString(v.Name):
		return fmt.Errorf("%s.name: %q: a to z, 0 to 9 and hyphens, such as vol01", key, v.Name)
	case !uuidForm.MatchString(v.ID):
		return fmt.Errorf("%s.id: %q: write the UUID in the volume's marker file, in lower case", key, v.ID)
	case v.Source == "" && v.Options != "":
		return fmt.Errorf("%s.options: they are for a volume with a source", key)
	case v.Source != "" && !nfsSource.MatchString(v.Source):
		return fmt.Errorf("%s.source: %q: write host:/path", key, v.Source)
	}
	if _, err := mountOptions(v.Options); err != nil {
		return fmt.Errorf("%s.options: %w", key, err)
	}
	return nil
}

// checkCredentials refuses a seed by which the machine would never be known to the others. enrolled: it is known
// already.
func (s *Seed) checkCredentials(enrolled bool) error {
	given := 0
	for _, v := range []string{s.EnrolURL, s.EnrolToken, s.CASHA256} {
		if v != "" {
			given++
		}
	}
	c := s.Credentials
	switch {
	case c != nil && given > 0:
		return errors.New("shoal: credentials and enrol_... are two ways to the same end: give one of them")
	case c != nil && (!isPEM(c.CA) || !isPEM(c.Cert) || !isPEM(c.Key) || c.DirectoryPassword == "" && s.Role != "vault"):
		return errors.New("shoal.credentials: ca, cert and key must be PEM texts, and directory_password is needed")
	case c != nil:
		return nil
	case enrolled && given < 3, given == 0 && !s.needsCredentials():
		return nil
	case given == 0:
		return fmt.Errorf("the seed has no credentials: %s %s would be unknown to the others: give shoal.enrol_url, shoal.enrol_token and shoal.ca_sha256", s.Role, s.Name)
	case given < 3:
		return errors.New("shoal: enrol_url, enrol_token and ca_sha256 belong together: one is missing")
	}
	if u, err := url.Parse(s.EnrolURL); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("shoal.enrol_url: %q: write https://host:port", s.EnrolURL)
	}
	if sum, err := hex.DecodeString(strings.ReplaceAll(s.CASHA256, ":", "")); err != nil || len(sum) != 32 {
		return errors.New("shoal.ca_sha256: it must be the fingerprint of the CA's certificate: 64 hexadecimal digits")
	}
	if strings.ContainsAny(s.EnrolToken, " \n\r\t'\"\\") {
		return errors.New("shoal.enrol_token: a token has no blanks and no quotes")
	}
	return nil
}

// needsCredentials: a filter has no certificate; all others are known by theirs, balancers and file servers by their agents.
func (s *Seed) needsCredentials() bool { return s.Role != "filter" }

// enrols reports whether the machine is to fetch its certificate.
func (s *Seed) enrols() bool { return s.EnrolURL != "" && s.Credentials == nil }

func isPEM(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN ") }

func checkAddress(key, address string) error {
	host, port, err := net.SplitHostPort(address)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || !hostName.MatchString(host) && net.ParseIP(host) == nil {
		return fmt.Errorf("%s: %q: write host:port", key, address)
	}
	return nil
}

// checkNetworks takes addresses and networks, but none that is everybody.
func checkNetworks(key string, list []string) error {
	if len(list) > maxEntries {
		return fmt.Errorf("%s: more than %d", key, maxEntries)
	}
	for _, n := range list {
		p, err := netip.ParsePrefix(n)
		if a, aerr := netip.ParseAddr(n); aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			return fmt.Errorf("%s: %q is neither an address nor a network", key, n)
		case p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16:
			return fmt.Errorf("%s: %q would let in the world: name the addresses of the servers", key, n)
		}
	}
	return nil
}
