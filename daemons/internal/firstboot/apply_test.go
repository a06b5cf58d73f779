package firstboot

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/daemons/internal/agent"
	"shoal/daemons/internal/boxd"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/shoalctl"
	"shoal/daemons/internal/switchd"
	"shoal/daemons/internal/vaultd"
)

// machine is an image of a role with the project's own templates.
type machine struct {
	*Machine
	out bytes.Buffer
	ran []string
}

func newMachine(t *testing.T, role string) *machine {
	t.Helper()
	m := &machine{}
	m.Machine = &Machine{Root: t.TempDir(), Out: &m.out}
	m.Run = func(name string, args ...string) (string, error) {
		m.ran = append(m.ran, name+" "+strings.Join(args, " "))
		if name == "udevadm" {
			return "", errors.New("there is no udev here")
		}
		return "", nil
	}
	found, err := filepath.Glob("../../../images/*/files" + templates + "/" + role)
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../../images/packages/*/files" + templates + "/" + role)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(found, more...) {
		if err := os.CopyFS(m.path(templates, role), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	m.put(t, "/usr/share/shoal/role", role+"\n")
	return m
}

func (m *machine) put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) seed(texts map[string]string) {
	m.Sources = func() (Texts, string, error) {
		all := Texts{}
		for name, text := range texts {
			all[name] = []byte(text)
		}
		return all, "a test", nil
	}
}

func (m *machine) get(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// load reads a configuration as its daemon does, with the files that it names below the root of the machine.
func (m *machine) load(t *testing.T, name string, into any) {
	t.Helper()
	text := strings.NewReplacer(`"/var/`, `"`+m.Root+"/var/", `"/etc/`, `"`+m.Root+"/etc/").Replace(m.get(t, name))
	secret := m.path(identity, "directory.secret")
	if err := os.MkdirAll(filepath.Dir(secret), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.put(t, name+".test", text)
	if err := conf.Load(m.path(name+".test"), into); err != nil {
		t.Fatal(err)
	}
}

func wantParts(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

const enrol = `
  enrol_url: https://vault1.example.test:7443
  enrol_token: tok-EN_1
  ca_sha256: "` + sum + `"
`

const sum = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

const boxSeed = `#cloud-config
hostname: box1.example.test
ssh_authorized_keys: [ssh-ed25519 AAAA operator]
packages: [passed-over]
shoal:
  role: box
  name: box1
  directory: {uris: ["ldaps://vault1.example.test:636", "ldaps://[2001:db8::1]:636"]}
  balancers: [192.0.2.10, "2001:db8::10"]
  peers: [10.1.0.0/24, "2001:db8:1::/64"]
  box:
    volumes:
    - {name: vol01, id: 0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51, source: "storage1:/vol01"}
    - {name: vol-02, id: 0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a52, source: "[2001:db8::5]:/vol-02", options: "nconnect=4,proto=tcp6"}
` + enrol

func TestBox(t *testing.T) {
	m := newMachine(t, "box")
	m.seed(map[string]string{"user-data": boxSeed, "meta-data": "instance-id: i\n"})
	if err := m.Apply(); err != nil {
		t.Fatal(err)
	}
	var c boxd.Config
	m.load(t, "/etc/shoal/boxd.hcl", &c)
	if ran := strings.Join(m.ran, "\n"); !strings.Contains(ran, "systemctl daemon-reload\nsystemctl start --no-block srv-shoal-vol01.mount ") {
		t.Errorf("nobody asks for the volumes: %s", ran)
	}
	if c.Server.Name != "box1" || len(c.Volumes) != 2 || c.Volumes[1].Path != "/srv/shoal/vol-02" || len(c.Listeners) != 7 ||
		c.Hints.Address != "box1.example.test:7001" || c.Directory.BindDN != "cn=box1,ou=servers,ou=config,o=shoal" || len(c.Listeners[0].ProxyFrom) != 2 {
		t.Errorf("%+v", c)
	}
	wantParts(t, m.get(t, "/etc/systemd/system/srv-shoal-vol01.mount"), "What=storage1:/vol01\n", "Options=vers=4.2,hard,proto=tcp,lookupcache=positive,")
	wantParts(t, m.get(t, `/etc/systemd/system/srv-shoal-vol\x2d02.mount`), "Where=/srv/shoal/vol-02\n", ",nconnect=4,proto=tcp6,_netdev\n")
	wantParts(t, m.get(t, "/etc/systemd/system/boxd.service.d/10-volumes.conf"), "RequiresMountsFor=/srv/shoal/vol01 /srv/shoal/vol-02\n", "firstboot mounts ")
	wantParts(t, m.get(t, "/run/shoal/enrol.env"), "SHOAL_NAME='box1'\n", "SHOAL_OWNER='642:642'\n")
	wantParts(t, m.get(t, "/etc/shoal/firewall.d/90-seed.nft"), "peers4 { 10.1.0.0/24 }", "peers6 { 2001:db8:1::/64 }")
	wantParts(t, m.get(t, "/etc/hosts"), "127.0.1.1 box1.example.test box1\n")
	for name, want := range map[string]fs.FileMode{"/run/shoal/enrol.token": 0o600, "/run/shoal/enrol.env": 0o600, "/root/.ssh/authorized_keys": 0o600} {
		if st, err := os.Stat(m.path(name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, wanted mode %v", name, st, err, want)
		}
	}
	if strings.Contains(m.out.String(), "tok-EN_1") {
		t.Error("the token is in the log")
	}
	// The second boot changes nothing; and with the certificate there, the token is not written again.
	before := m.get(t, "/etc/shoal/boxd.hcl")
	m.put(t, identity+"/server.crt", "there")
	if err := os.RemoveAll(m.path("/run/shoal")); err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(); err != nil {
		t.Fatal(err)
	}
	if m.get(t, "/etc/shoal/boxd.hcl") != before {
		t.Error("the second boot wrote something else")
	}
	if _, err := os.Stat(m.path("/run/shoal/enrol.token")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("token of an enrolled machine: %v", err)
	}
	// Without the seed it stays what it is.
	m.seed(nil)
	if err := m.Apply(); err != nil {
		t.Error(err)
	}
}

func TestSwitch(t *testing.T) {
	m := newMachine(t, "switch")
	m.seed(map[string]string{"enrol-token": "tok-EN_1\n", "meta-data": "local-hostname: mx1.example.test\n", "user-data": `#cloud-config
{"shoal": {"role": "switch", "name": "switch1", "enrol_url": "https://vault1:7443", "ca_sha256": "` + sum + `",
 "directory": {"uris": ["ldaps://vault1:636"]},
 "switch": {"lmtp": ["lb.example.test:24"], "smart_host": "[2001:db8::7]:25", "queue": {"id": "6f0c1f0e-90b4-4a0e-8c7e-0d0a5d2f8a11"}}}}`})
	if err := m.Apply(); err != nil {
		t.Fatal(err)
	}
	var c switchd.Config
	m.load(t, "/etc/shoal/switchd.hcl", &c)
	if c.Hostname != "mx1.example.test" || c.Queue.Path != m.Root+"/var/lib/shoal/switch/queue" || c.Outbound.SmartHost != "[2001:db8::7]:25" || len(c.Listeners) != 4 || c.Hints.Address != "mx1.example.test:7001" {
		t.Errorf("%+v", c)
	}
	wantParts(t, m.get(t, "/var/lib/shoal/switch/queue/shoal-queue"), "id 6f0c1f0e-90b4-4a0e-8c7e-0d0a5d2f8a11\n")
	wantParts(t, m.get(t, "/run/shoal/enrol.token"), "tok-EN_1\n")
	wantParts(t, m.get(t, "/etc/shoal/firewall.d/90-seed.nft"), "peers4 { 0.0.0.0/0 }")
}

const pem = "-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\\n"

func TestVault(t *testing.T) {
	for name, c := range map[string]struct {
		vault  string
		shadow bool // it follows somebody
		root   bool // it knows the administrator's password
	}{
		"master":                      {`root_password_hash: "{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"`, false, true},
		"shadow":                      {`shadow_of: ["ldaps://vault1:636"]`, true, false},
		"shadow that may be promoted": {`shadow_of: ["ldaps://vault1:636"], root_password_hash: "{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"`, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, "vault")
			m.seed(map[string]string{"user-data": "#cloud-config\nhostname: vault1\nshoal:\n  role: vault\n  vault: {" + c.vault + "}\n" +
				`  credentials: {ca: "` + pem + `", cert: "` + pem + `", key: "` + pem + `", directory_password: secret}` + "\n"})
			if err := m.Apply(); err != nil {
				t.Fatal(err)
			}
			// The configuration reads the password; on the machine the daemon's group may, here its owner.
			if c.root {
				if st, err := os.Stat(m.path("/etc/shoal/root.secret")); err != nil || st.Mode().Perm() != 0o640 {
					t.Errorf("%v %v", st, err)
				}
			}
			var got vaultd.Config
			m.load(t, "/etc/shoal/vaultd.hcl", &got)
			// The master has the block too, for the day on which another one is promoted; it has no provider there.
			if got.Server.Name != "vault1" || got.Shadow == nil || (len(got.Shadow.Provider) > 0) != c.shadow || len(got.Listeners) != 2 ||
				got.Shadow.PasswordFile != m.path(identity, "directory.secret") || strings.HasSuffix(got.Root.PasswordFile, "/root.secret") != c.root {
				t.Errorf("%+v %+v", got, got.Shadow)
			}
			if st, err := os.Stat(m.path(identity, "server.key")); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%v %v", st, err)
			}
			if !strings.Contains(strings.Join(m.ran, "\n"), "chown 643:643 "+m.path(identity, "server.key")) {
				t.Errorf("the key belongs to nobody: %q", m.ran)
			}
		})
	}
}

// The master can be the authority for enrolment: the CA's key is its agent's alone, and the agent has a configuration; without
// the key in the seed there is none.
func TestAuthority(t *testing.T) {
	seed := func(vault string) map[string]string {
		return map[string]string{"user-data": "#cloud-config\nhostname: vault1.example.test\nshoal:\n  role: vault\n  vault: {" + vault + "}\n" +
			`  credentials: {ca: "` + pem + `", cert: "` + pem + `", key: "` + pem + `"}` + "\n"}
	}
	m := newMachine(t, "vault")
	m.seed(seed(`root_password: swordfish, authority: {ca_key: "` + pem + `"}`))
	if err := m.Apply(); err != nil {
		t.Fatal(err)
	}
	wantParts(t, m.get(t, "/etc/shoal/root.secret"), "swordfish\n")
	for name, want := range map[string]fs.FileMode{authority + "/ca.key": 0o600, authority + "/ca.crt": 0o644, "/etc/shoal/root.secret": 0o640} {
		if st, err := os.Stat(m.path(name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, wanted mode %v", name, st, err, want)
		}
	}
	if !strings.Contains(strings.Join(m.ran, "\n"), "chown 646:646 "+m.path(authority, "ca.key")) {
		t.Errorf("the CA's key is not the agent's: %q", m.ran)
	}
	m.put(t, "/var/lib/shoal/enrol/directory.secret", "secret\n")
	if err := os.Chmod(m.path("/var/lib/shoal/enrol/directory.secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got agent.Config
	m.load(t, "/etc/shoal/shoal-agent.hcl", &got)
	if got.Enrolment == nil || got.Enrolment.Advertise[0] != "ldaps://vault1.example.test:636" || got.Server.Name != "enrol" || len(got.Listeners) != 1 {
		t.Errorf("%+v", got)
	}
	var operator shoalctl.Config
	m.load(t, "/etc/shoal/authority.hcl", &operator)
	wantParts(t, m.get(t, "/etc/shoal/announce"), "ldaps=vault1.example.test:636\n")

	plain := newMachine(t, "vault")
	plain.seed(seed("root_password: swordfish"))
	if err := plain.Apply(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/etc/shoal/shoal-agent.hcl", "/etc/shoal/authority.hcl", authority + "/ca.key"} {
		if _, err := os.Stat(plain.path(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s without an authority: %v", name, err)
		}
	}
}

// What is wrong is said in one sentence that names the key; the configuration of the role stays away, and the operator
// gets in.
func TestBadSeeds(t *testing.T) {
	without := func(part string) string { return strings.Replace(boxSeed, part, "", 1) }
	change := func(from, to string) string { return strings.Replace(boxSeed, from, to, 1) }
	for name, c := range map[string]struct{ seed, want string }{
		"no credentials":         {without(enrol), "the seed has no credentials: box box1"},
		"half of them":           {without("  enrol_token: tok-EN_1\n"), "belong together"},
		"plain enrolment":        {change("https://vault1", "http://vault1"), "shoal.enrol_url"},
		"bad fingerprint":        {change(sum, "1234"), "shoal.ca_sha256"},
		"quotes in the token":    {change("tok-EN_1", `"a'; reboot #"`), "shoal.enrol_token"},
		"another role":           {change("role: box", "role: switch"), "shoal.switch.lmtp"},
		"no role of this image":  {"#cloud-config\nhostname: x\nssh_authorized_keys: [a b]\nshoal: {role: filter, peers: [192.0.2.1]}\n", "this image is a box"},
		"unknown key":            {change("balancers", "balancer"), "there is no key balancer"},
		"bad name":               {change("name: box1\n", "name: Box_1\n"), "shoal.name"},
		"soft mount":             {change("nconnect=4", "soft"), `"soft" is not allowed`},
		"old protocol":           {change("nconnect=4", "vers=3"), `"vers=3" is not allowed`},
		"other lookup cache":     {change("nconnect=4", "lookupcache=all"), `"lookupcache=all" is not allowed`},
		"no id":                  {change("0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51", "vol"), "shoal.box.volumes[0].id"},
		"source with a blank":    {change("storage1:/vol01", "storage1:/vol 01"), "shoal.box.volumes[0].source"},
		"world is a balancer":    {change("192.0.2.10", "0.0.0.0/0"), "would let in the world"},
		"no volumes":             {"#cloud-config\nhostname: box1\nssh_authorized_keys: [a b]\nshoal: {role: box, directory: {uris: [\"ldaps://v:636\"]}}\n", "shoal.box.volumes"},
		"no directory":           {change(`["ldaps://vault1.example.test:636", "ldaps://[2001:db8::1]:636"]`, "[]"), "shoal.directory.uris"},
		"wrong type":             {change("balancers: [192.0.2.10, \"2001:db8::10\"]", "balancers: {a: b}"), "wrong type"},
		"nothing for this role":  {"#cloud-config\nhostname: box1\nssh_authorized_keys: [a b]\n", "no key shoal"},
		"two ways":               {boxSeed + "  credentials: {ca: x}\n", "give one of them"},
		"credentials not in PEM": {without(enrol) + "\n  credentials: {ca: x, cert: y, key: z}\n", "must be PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, "box")
			m.seed(map[string]string{"user-data": c.seed})
			err := m.Apply()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, wanted %q", err, c.want)
			}
			if strings.Contains(err.Error(), "tok-EN") {
				t.Errorf("the error tells the token: %v", err)
			}
			if _, err := os.Stat(m.path("/etc/shoal/boxd.hcl")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a configuration was written: %v", err)
			}
			if _, err := os.Stat(m.path("/root/.ssh/authorized_keys")); strings.Contains(c.want, "there is no key") != (err != nil) && !strings.Contains(c.want, "wrong type") {
				t.Errorf("access: %v", err)
			}
		})
	}
	for name, c := range map[string]struct{ role, seed, want string }{
		"no seed at all":       {"box", "", "this machine has no seed"},
		"not a cloud-config":   {"box", "#!/bin/sh\n", "must begin with the line #cloud-config"},
		"not YAML":             {"box", "#cloud-config\n\t{", "user-data"},
		"bad host name":        {"box", "#cloud-config\nhostname: \"a b\"\n", "hostname"},
		"filter for everybody": {"filter", "#cloud-config\nhostname: f\nshoal: {role: filter}\n", "shoal.peers"},
		"router id":            {"lb", "#cloud-config\nhostname: l\nshoal: {role: lb, lb: {vrrp: [{interface: eth0, id: 256, priority: 1, addresses: [192.0.2.1/24]}]}}\n", "vrrp[0].id"},
		"master and shadow":    {"vault", "#cloud-config\nhostname: v\nshoal: {role: vault, vault: {root_password: x, shadow_of: [\"ldaps://v:636\"]}}\n", "give one of them"},
		"two passwords":        {"vault", "#cloud-config\nhostname: v\nshoal: {role: vault, vault: {root_password: x, root_password_hash: \"{ARGON2}x\"}}\n", "give one of them"},
		"shadow's authority":   {"vault", "#cloud-config\nhostname: v\nshoal: {role: vault, vault: {authority: {ca_key: x}, shadow_of: [\"ldaps://v:636\"]}}\n", "give one of them"},
		"authority without":    {"vault", "#cloud-config\nhostname: v\nshoal: {role: vault, vault: {root_password: x, authority: {ca_key: x}}}\n", "shoal.vault.authority"},
		"master without":       {"vault", "#cloud-config\nhostname: v\nshoal: {role: vault}\n", "root_password_hash"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, c.role)
			if c.seed == "" {
				m.seed(nil)
			} else {
				m.seed(map[string]string{"user-data": c.seed})
			}
			if err := m.Apply(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, wanted %q", err, c.want)
			}
		})
	}
}
