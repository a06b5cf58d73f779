package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// need checks that the peer's program is installed, and says what to install.
func need(program, pkg string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		p := filepath.Join(dir, program)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: apt-get install %s", program, pkg)
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

func writeFile(path, format string, a ...any) error {
	return os.WriteFile(path, []byte(fmt.Sprintf(format, a...)), 0o644)
}

// A dovecotPeer is Dovecot as a small provider would run it: Maildir, fsync always for deliveries, otherwise
// its defaults.
type dovecotPeer struct {
	*tree
	lmtp, imap, pop string
}

func (b *bench) dovecot() (*dovecotPeer, error) {
	exe, err := need("dovecot", "dovecot-imapd dovecot-lmtpd dovecot-pop3d")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "dovecot")
	for _, d := range []string{dir, filepath.Join(dir, "run"), filepath.Join(dir, "mail")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if out, err := exec.Command("chown", "mail:mail", filepath.Join(dir, "mail")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("chown: %s", out)
	}
	p := &dovecotPeer{}
	if p.lmtp, err = freePort(); err != nil {
		return nil, err
	}
	if p.imap, err = freePort(); err != nil {
		return nil, err
	}
	if p.pop, err = freePort(); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "dovecot.conf")
	err = writeFile(conf, `base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = /dev/stderr
protocols = imap lmtp pop3
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:~/Maildir
mail_fsync = always
default_process_limit = 2000
default_client_limit = 12000
passdb {
  driver = static
  args = password=bench
}
userdb {
  driver = static
  args = uid=mail gid=mail home=%[1]s/mail/%%u allow_all_users=yes
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = %[2]s
  }
}
service imap {
  process_limit = 4000
}
service imap-login {
  inet_listener imap {
    address = 127.0.0.1
    port = %[3]s
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    address = 127.0.0.1
    port = %[4]s
  }
  inet_listener pop3s {
    port = 0
  }
}
`, dir, port(p.lmtp), port(p.imap), port(p.pop))
	if err != nil {
		return nil, err
	}
	if p.tree, err = b.start("dovecot", exe, "-F", "-c", conf); err != nil {
		return nil, err
	}
	for _, addr := range []string{p.lmtp, p.imap, p.pop} {
		if err := p.waitPort(addr); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// A postfixPeer is Postfix with its defaults, delivering everything to the sink over LMTP.
type postfixPeer struct {
	*tree
	smtp string
}

func (b *bench) postfix(sinkAddr string) (*postfixPeer, error) {
	exe, err := need("postfix", "postfix")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "postfix")
	for _, d := range []string{dir, filepath.Join(dir, "spool"), filepath.Join(dir, "data")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if out, err := exec.Command("chown", "postfix", filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("chown: %s", out)
	}
	p := &postfixPeer{}
	if p.smtp, err = freePort(); err != nil {
		return nil, err
	}
	err = writeFile(filepath.Join(dir, "main.cf"), `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
myhostname = postfix.bench.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
virtual_mailbox_domains = bench.test
virtual_mailbox_maps = static:all
virtual_transport = lmtp:inet:%[2]s
lmtp_destination_concurrency_limit = 100
maillog_file = /dev/stdout
smtputf8_enable = no
`, dir, sinkAddr)
	if err != nil {
		return nil, err
	}
	// The services of Debian's master.cf that this path uses, none in a chroot.
	services := []string{
		"127.0.0.1:" + port(p.smtp) + " inet n - n - 200 smtpd",
		"pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr",
		"tlsmgr unix - - n 1000? 1 tlsmgr", "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce",
		"defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce", "verify unix - - n - 1 verify",
		"flush unix n - n 1000? 0 flush", "proxymap unix - - n - - proxymap", "smtp unix - - n - - smtp",
		"relay unix - - n - - smtp", "error unix - - n - - error", "retry unix - - n - - error",
		"discard unix - - n - - discard", "local unix - n n - - local", "virtual unix - n n - - virtual",
		"lmtp unix - - n - - lmtp", "anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache",
		"postlog unix-dgram n - n - 1 postlogd",
	}
	if err := writeFile(filepath.Join(dir, "master.cf"), "%s\n", strings.Join(services, "\n")); err != nil {
		return nil, err
	}
	if p.tree, err = b.start("postfix", exe, "-c", dir, "start-fg"); err != nil {
		return nil, err
	}
	return p, p.waitPort(p.smtp)
}

// A slapdPeer is slapd with one mdb database and an equality index on mail.
type slapdPeer struct {
	*tree
	addr string
	load reading // of the entries, offline
}

const ldapSuffix, ldapAdmin = "o=bench", "cn=admin,o=bench"

func (b *bench) slapd() (*slapdPeer, error) {
	exe, err := need("slapd", "slapd ldap-utils")
	if err != nil {
		return nil, err
	}
	add, err := need("slapadd", "slapd")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "slapd")
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o755); err != nil {
		return nil, err
	}
	p := &slapdPeer{}
	if p.addr, err = freePort(); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "slapd.conf")
	err = writeFile(conf, `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile %[1]s/pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload argon2
loglevel none
database mdb
maxsize 4294967296
suffix "%[2]s"
rootdn "%[3]s"
rootpw bench
directory %[1]s/db
index objectClass,uid,entryUUID,entryCSN eq
index mail,cn,sn,givenName eq,sub
`, dir, ldapSuffix, ldapAdmin)
	if err != nil {
		return nil, err
	}
	ldif := filepath.Join(dir, "entries.ldif")
	if err := writeLDIF(ldif, b.entries); err != nil {
		return nil, err
	}
	began := time.Now()
	load := exec.Command(add, "-q", "-f", conf, "-l", ldif)
	if out, err := load.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("slapadd: %w: %s", err, out)
	}
	p.load = reading{cpu: load.ProcessState.UserTime() + load.ProcessState.SystemTime(), wall: time.Since(began)}
	if p.tree, err = b.start("slapd", exe, "-d", "0", "-f", conf, "-h", "ldap://"+p.addr); err != nil {
		return nil, err
	}
	return p, p.waitPort(p.addr)
}
