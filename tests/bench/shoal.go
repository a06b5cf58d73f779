package main

import (
	"bytes"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// A shoalPeer is one directory, one box and, when asked for, one switch, each in a control group of its own. Their
// certificates, directory content and configuration are those that `shoalctl up` makes; the
// balancer is left out, because it is not on the other side either.
type shoalPeer struct {
	vault, box *tree
	trees      []*tree
	data       string
	base       int
	lmtp, imap string
	pop        string
	password   string
	lmtpTLS    *tls.Config // of a switch, for the load on the box
	sinkTLS    *tls.Config // of a box, for the sink
	bench      *bench
}

const benchPassword = "bench-password-7"

// shoal makes the data folder with `shoalctl up` on the first call, and starts directory and box on it.
func (b *bench) shoal() (*shoalPeer, error) {
	s := &shoalPeer{bench: b, data: filepath.Join(b.dir, "shoal"), base: 17000, password: benchPassword}
	if _, err := os.Stat(s.data); err != nil {
		if err := s.prepare(); err != nil {
			return nil, fmt.Errorf("preparing the service: %w", err)
		}
	}
	direct := "ldap://127.0.0.1:" + strconv.Itoa(s.base+1389)
	edit := func(name string, extra string) (string, error) {
		text, err := os.ReadFile(filepath.Join(s.data, "conf", name+".hcl"))
		if err != nil {
			return "", err
		}
		out := regexp.MustCompile(`uris\s*=.*`).ReplaceAllString(string(text), fmt.Sprintf("uris = [%q]", direct))
		out = regexp.MustCompile(`\n\s*proxy_from\s*=.*`).ReplaceAllString(out, "")
		out = regexp.MustCompile(`max_connections\s*=.*`).ReplaceAllString(out, "max_connections = 60000")
		path := filepath.Join(s.data, "conf", name+"-bench.hcl")
		return path, os.WriteFile(path, []byte(out+extra), 0o600)
	}
	vaultConf, err := edit("vault1", "")
	if err != nil {
		return nil, err
	}
	boxConf, err := edit("box1", "\nimap {\n  allow_plain = true\n  max_connections_per_address = 100000\n  max_connections_per_user = 10000\n}\npop {\n  allow_plain = true\n}\n")
	if err != nil {
		return nil, err
	}
	if s.vault, err = b.start("vaultd", filepath.Join(b.bin, "vaultd"), "-config", vaultConf); err != nil {
		return nil, err
	}
	s.trees = append(s.trees, s.vault)
	if err := s.vault.waitPort("127.0.0.1:" + strconv.Itoa(s.base+1389)); err != nil {
		return nil, err
	}
	if s.box, err = b.start("boxd", filepath.Join(b.bin, "boxd"), "-config", boxConf); err != nil {
		return nil, err
	}
	s.trees = append(s.trees, s.box)
	s.lmtp, s.imap, s.pop = listenerOf(boxConf, "lmtp"), listenerOf(boxConf, "imap"), listenerOf(boxConf, "pop3")
	if err := s.box.waitPort(s.imap); err != nil {
		return nil, err
	}
	if err := s.box.waitPort(s.lmtp); err != nil {
		return nil, err
	}
	if s.lmtpTLS, err = s.credentials("switch1"); err != nil {
		return nil, err
	}
	s.sinkTLS, err = s.credentials("box1")
	return s, err
}

// prepare lets `shoalctl up` make everything, adds the accounts of the load, and stops it again.
func (s *shoalPeer) prepare() error {
	ctl := func(stdin string, args ...string) ([]byte, error) {
		cmd := exec.Command(filepath.Join(s.bench.bin, "shoalctl"), append([]string{"--data", s.data}, args...)...)
		cmd.Env = append(os.Environ(), "SHOAL_DATA="+s.data, "SHOAL_PORT_BASE="+strconv.Itoa(s.base))
		cmd.Stdin = strings.NewReader(stdin)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("shoalctl %s: %w: %s", strings.Join(args, " "), err, errs.String())
		}
		return out, err
	}
	os.Setenv("SHOAL_DATA", s.data)
	os.Setenv("SHOAL_PORT_BASE", strconv.Itoa(s.base))
	up, err := s.bench.start("up", filepath.Join(s.bench.bin, "shoalctl"), "up")
	if err != nil {
		return err
	}
	defer up.stop()
	for deadline := time.Now().Add(60 * time.Second); ; {
		out, err := ctl("", "status", "--json")
		var st struct{ Healthy bool }
		if err == nil && json.Unmarshal(out, &st) == nil && st.Healthy {
			break
		}
		if len(up.pids()) == 0 {
			text, _ := os.ReadFile(filepath.Join(s.bench.dir, "up.log"))
			return fmt.Errorf("the service did not start: %s", text)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the service did not become healthy: %w: %s", err, out)
		}
		time.Sleep(500 * time.Millisecond)
	}
	if _, err := ctl("", "domain", "add", "bench.test"); err != nil {
		return err
	}
	return s.addAccounts(max(50+2*s.bench.sessions, s.bench.idle))
}

// addAccounts writes the accounts of the load straight into the directory, with a salted SHA-512 of their password: thousands
// of argon2id hashes would take minutes, and logins are not what is measured.
func (s *shoalPeer) addAccounts(n int) error {
	secret, err := os.ReadFile(filepath.Join(s.data, "secrets", "root"))
	if err != nil {
		return err
	}
	pair, err := s.credentials("operator")
	if err != nil {
		return err
	}
	conn, err := ldap.DialURL("ldaps://127.0.0.1:"+strconv.Itoa(s.base+1636), ldap.DialWithTLSConfig(pair))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Bind("cn=admin,o=shoal", strings.TrimSpace(string(secret))); err != nil {
		return err
	}
	salt := []byte("bench")
	sum := sha512.Sum512(append([]byte(benchPassword), salt...))
	hash := "{SSHA512}" + base64.StdEncoding.EncodeToString(append(sum[:], salt...))
	for i, a := range recipients("bench.test", n) {
		add := ldap.NewAddRequest(fmt.Sprintf("uid=user%d,associatedDomain=bench.test,ou=domains,o=shoal", i), nil)
		for k, v := range map[string]string{"uid": fmt.Sprintf("user%d", i), "cn": a, "sn": a, "mail": a, "mailLocalAddress": a,
			"userPassword": hash, "shoalAccountId": fmt.Sprintf("bench-account-%d", i), "shoalVolumeName": "vol01",
			"shoalAccountStatus": "active", "shoalCredentialVersion": "1"} {
			add.Attribute(k, []string{v})
		}
		add.Attribute("objectClass", []string{"inetOrgPerson", "inetLocalMailRecipient", "shoalAccount"})
		if err := conn.Add(add); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	return nil
}

// listenerOf reads the address of a listener out of a configuration that shoalctl wrote.
func listenerOf(conf, name string) string {
	text, err := os.ReadFile(conf)
	if err != nil {
		return ""
	}
	m := regexp.MustCompile(`listener "` + name + `" \{\s*address\s*=\s*"([^"]+)"`).FindSubmatch(text)
	if m == nil {
		return ""
	}
	return string(m[1])
}

// credentials is a TLS configuration with the certificate of one of the servers. The load does not check whom it
// speaks to: it is the server's cost that is measured.
func (s *shoalPeer) credentials(name string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.data, "pki", name+".crt"), filepath.Join(s.data, "pki", name+".key"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, nil
}

// A switchPeer is one switchd.
type switchPeer struct {
	*tree
	addr string
}

// switchTo starts a switch that delivers to the given LMTP server.
func (s *shoalPeer) switchTo(b *bench, lmtp string) (*switchPeer, error) {
	text, err := os.ReadFile(filepath.Join(s.data, "conf", "switch1.hcl"))
	if err != nil {
		return nil, err
	}
	out := regexp.MustCompile(`uris\s*=.*`).ReplaceAllString(string(text), fmt.Sprintf("uris = [%q]", "ldap://127.0.0.1:"+strconv.Itoa(s.base+1389)))
	out = regexp.MustCompile(`\n\s*proxy_from\s*=.*`).ReplaceAllString(out, "")
	out = regexp.MustCompile(`(lmtp \{\s*addresses\s*=).*`).ReplaceAllString(out, fmt.Sprintf("$1 [%q]", lmtp))
	conf := filepath.Join(s.data, "conf", "switch1-bench.hcl")
	if err := os.WriteFile(conf, []byte(out), 0o600); err != nil {
		return nil, err
	}
	p := &switchPeer{addr: listenerOf(conf, "smtp")}
	if p.tree, err = b.start("switchd", filepath.Join(b.bin, "switchd"), "-config", conf); err != nil {
		return nil, err
	}
	s.trees = append(s.trees, p.tree)
	return p, p.waitPort(p.addr)
}

func (s *shoalPeer) stop() {
	for i := len(s.trees) - 1; i >= 0; i-- {
		s.trees[i].stop()
	}
	s.trees = nil
}

// A vaultPeer is a directory of its own with the entries of the search.
type vaultPeer struct {
	*tree
	addr string
	load reading // of the entries, offline
}

func (b *bench) vault() (*vaultPeer, error) {
	dir := filepath.Join(b.dir, "vault")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := &vaultPeer{}
	var err error
	if p.addr, err = freePort(); err != nil {
		return nil, err
	}
	secret := filepath.Join(dir, "root.secret")
	if err := os.WriteFile(secret, []byte("bench\n"), 0o600); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "vaultd.hcl")
	err = writeFile(conf, `server {
  name = "bench"
}
suffix      = %[1]q
allow_plain = ["ldap"]
root {
  password_file = %[2]q
}
database {
  path = %[3]q
}
listener "ldap" {
  address = %[4]q
}
`, ldapSuffix, secret, filepath.Join(dir, "db"), p.addr)
	if err != nil {
		return nil, err
	}
	ldif := filepath.Join(dir, "entries.ldif")
	if err := writeLDIF(ldif, b.entries); err != nil {
		return nil, err
	}
	began := time.Now()
	load := exec.Command(filepath.Join(b.bin, "vaultd"), "-config", conf, "-import", ldif)
	if out, err := load.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("vaultd -import: %w: %s", err, out)
	}
	p.load = reading{cpu: load.ProcessState.UserTime() + load.ProcessState.SystemTime(), wall: time.Since(began)}
	if p.tree, err = b.start("vaultd-ldap", filepath.Join(b.bin, "vaultd"), "-config", conf); err != nil {
		return nil, err
	}
	return p, p.waitPort(p.addr)
}
