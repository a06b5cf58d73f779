package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/pki"
)

// OpenLDAP in the place of vaultd: the same three servers, one that takes the updates and two copies, are slapd, with
// the schema of the service, its tree, and in slapd's own words its access rules. docs/directory-openldap.md says the
// same to who has a slapd of his own.

// Directories that Options.Directory may name.
const (
	DirectoryVault = "vaultd"
	DirectorySlapd = "slapd"
)

// slapdSchemas are those of OpenLDAP that shoal.schema needs, in their order.
var slapdSchemas = []string{"core", "cosine", "inetorgperson", "misc"}

func findSlapd() (string, error) {
	for _, name := range []string{"/usr/sbin/slapd", "/usr/libexec/slapd", "slapd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("slapd is not installed, and is to be the directory: install it with apt-get install slapd (as root), then try again")
}

func (l Layout) slapdConf(s server) string { return l.path("conf", s.name+"-slapd.conf") }

// directoryFolder is where a server has its database.
func (c *cluster) directoryFolder(s server) string {
	if c.Directory == DirectorySlapd {
		return c.path(s.name, "slapd")
	}
	return c.path(s.name)
}

// writeSlapd writes configuration and schema of one slapd.
func (c *cluster) writeSlapd(s server) error {
	text, err := fs.ReadFile(dirschema.Files(), "shoal.schema")
	if err != nil {
		return err
	}
	if err := pki.WriteFile(c.path("conf", "shoal.schema"), text, 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(c.directoryFolder(s), 0o700); err != nil {
		return err
	}
	root, err := c.ensureSecret("root")
	if err != nil {
		return err
	}
	own, err := c.ensureSecret(s.name)
	if err != nil {
		return err
	}
	return pki.WriteFile(c.slapdConf(s), []byte(c.slapdConfig(s, root, own)), 0o600)
}

// slapdConfig is slapd's configuration.
func (c *cluster) slapdConfig(s server, root, own string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	servers := "ou=servers,ou=config," + suffix
	b.WriteString(writtenBy)
	for _, name := range slapdSchemas {
		p("include /etc/ldap/schema/%s.schema", name)
	}
	p("include %s", c.path("conf", "shoal.schema"))
	p("modulepath /usr/lib/ldap")
	for _, m := range []string{"back_mdb", "syncprov", "ppolicy", "argon2"} {
		p("moduleload %s", m)
	}
	p("loglevel none")
	p("idletimeout 7200")
	p("TLSCACertificateFile %s", c.CAFile())
	p("TLSCertificateFile %s", c.cert(s.name))
	p("TLSCertificateKeyFile %s", c.key(s.name))
	p("TLSVerifyClient try")
	p("# Passwords are taken over TLS only, and kept as argon2id.")
	p("security simple_bind=128")
	p("password-hash {ARGON2}")
	p("")
	p("access to dn.base=\"\" by * read")
	p("access to dn.base=\"cn=Subschema\" by * read")
	p("")
	p("database mdb")
	p("maxsize 4294967296")
	p("suffix %q", suffix)
	p("rootdn %q", dirclient.AdminDN(suffix))
	p("rootpw %s", root)
	p("directory %s", c.directoryFolder(s))
	p("index objectClass,entryUUID,entryCSN,uid,mailLocalAddress,associatedDomain,member,shoalAccountId,shoalVolumeName eq")
	p("index cn,sn,givenName,mail eq,sub")
	p("limits dn.children=%q size=unlimited time=unlimited", servers)
	p("")
	p("# Passwords: only to verify, to servers that set them when they are enrolled, and to copies of the directory.")
	p("access to dn.children=%q attrs=userPassword", servers)
	p("  by set=\"user/shoalRole & [vault]\" read")
	p("  by set=\"user/shoalRole & [enrol]\" =wx")
	p("  by anonymous auth by * none")
	p("access to dn.children=%q attrs=shoalEnrolToken", servers)
	p("  by set=\"user/shoalRole & [enrol]\" write")
	p("  by dn.children=%q read by * none", servers)
	p("access to dn.children=%q attrs=shoalVersion,shoalAddress", servers)
	p("  by self write")
	p("  by dn.children=%q read by * none", servers)
	p("access to attrs=userPassword")
	p("  by set=\"user/shoalRole & [vault]\" read")
	p("  by self =wx by anonymous auth by * none")
	for _, secret := range [][2]string{{"shoalMigrationSecret", "[box]"}, {"shoalDkimSealedKey", "[switch]"}, {"authPassword,shoalScramKey", "([box] | [switch])"}} {
		p("access to attrs=%s", secret[0])
		p("  by set=\"user/shoalRole & [vault]\" read")
		p("  by set=\"user/shoalRole & %s\" read by * none", secret[1])
	}
	p("access to *")
	p("  by dn.children=%q read", servers)
	p("  by self read by * none")
	p("")
	if s.shadow() {
		p("syncrepl rid=%03d provider=%s type=refreshAndPersist retry=\"1 +\" searchbase=%q", s.index, c.masterURI(), suffix)
		p("  bindmethod=simple binddn=%q credentials=%q", dirclient.ServerDN(suffix, s.name), own)
		p("  starttls=critical tls_cacert=%s tls_reqcert=demand", c.CAFile())
		p("updateref %s", c.masterURI())
	}
	p("overlay syncprov")
	p("syncprov-checkpoint 100 1")
	p("syncprov-sessionlog 10000")
	p("# Passwords that come in clear are hashed.")
	p("overlay ppolicy")
	p("ppolicy_hash_cleartext")
	return b.String()
}

// startSlapd starts one.
func (c *cluster) startSlapd(s server) error {
	return c.start(&process{
		name: s.name,
		path: c.slapd,
		args: []string{"-d", "0", "-f", c.slapdConf(s), "-n", s.name,
			"-h", "ldap://" + c.own(s, portLDAP) + " ldaps://" + c.own(s, portLDAPS)},
		stopBy: syscall.SIGTERM,
	})
}

// waitSlapd waits until a slapd lets somebody log in: the administrator at the master, at a copy the server that was
// entered last, and so is there when the copy is complete.
func (c *cluster) waitSlapd(ctx context.Context, s server) error {
	dn, secret := dirclient.AdminDN(suffix), "root"
	if s.shadow() {
		last := fleet[len(fleet)-1].name
		dn, secret = dirclient.ServerDN(suffix, last), last
	}
	password, err := c.ensureSecret(secret)
	if err != nil {
		return err
	}
	creds, err := pki.Load(pki.Files{Cert: c.cert("operator"), Key: c.key("operator"), CA: c.CAFile()})
	if err != nil {
		return err
	}
	last := errors.New("no answer yet")
	err = poll(ctx, func() (bool, error) {
		if err := c.checkAlive(s.name); err != nil {
			return false, err
		}
		admin, err := dirclient.Connect(ctx, dirclient.AdminOptions{URIs: []string{"ldap://" + c.own(s, portLDAP)},
			TLS: creds.ClientTLS(pki.RoleVault), Suffix: suffix, DN: dn, Password: password})
		if err != nil {
			last = err
			return false, nil
		}
		admin.Close()
		return true, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s was not ready within %v: %w; the end of its log:\n%s", s.name, startWithin, last, tailOf(c.log(s.name), 15))
	}
	return err
}

// checkSlapd looks for what the configuration names.
func checkSlapd() (string, error) {
	program, err := findSlapd()
	if err != nil {
		return "", err
	}
	for _, name := range slapdSchemas {
		if _, err := os.Stat(filepath.Join("/etc/ldap/schema", name+".schema")); err != nil {
			return "", fmt.Errorf("slapd's schema: %w", err)
		}
	}
	return program, nil
}
