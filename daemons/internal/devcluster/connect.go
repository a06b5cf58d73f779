package devcluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"shoal/daemons/internal/pki"
)

// Info is how to reach a running service.
type Info struct {
	Data     string                       `json:"data"`
	PortBase int                          `json:"port_base"`
	CAFile   string                       `json:"ca_file"`
	Services map[string]string            `json:"services"` // at the balancer, by service
	Servers  map[string]map[string]string `json:"servers"`  // each server alone, by server and service
	Users    []User                       `json:"users"`
}

// Info describes the service of this layout, whether it runs or not.
func (l Layout) Info() (Info, error) {
	users, err := l.Users()
	if err != nil {
		return Info{}, err
	}
	info := Info{
		Data: l.Data, PortBase: l.PortBase, CAFile: l.CAFile(), Users: users,
		Services: map[string]string{}, Servers: map[string]map[string]string{},
	}
	for _, f := range frontends {
		info.Services[f.name] = l.front(f.port)
	}
	for _, s := range fleet {
		info.Servers[s.name] = map[string]string{}
		for service, addresses := range l.addresses(s) {
			info.Servers[s.name][service] = addresses[0]
		}
	}
	return info, nil
}

// connectInfo prints how to connect.
func (c *cluster) connectInfo() error {
	info, err := c.Info()
	if err != nil {
		return err
	}
	rc := c.path("mbsyncrc")
	if err := pki.WriteFile(rc, []byte(c.mbsyncrc(info.Users)), 0o600); err != nil {
		return err
	}
	for _, u := range info.Users {
		if err := os.MkdirAll(c.maildir(u), 0o700); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.JSON {
		return json.NewEncoder(c.Out).Encode(info)
	}
	_, err = fmt.Fprint(c.Out, c.welcome(info, rc))
	return err
}

// shown is a path as short as it can be written from here.
func shown(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	short, err := filepath.Rel(here, path)
	if err != nil || len(short) > len(path) || strings.HasPrefix(short, "..") {
		return path
	}
	return short
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func (c *cluster) welcome(info Info, rc string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	first := info.Users[0]
	ca := shown(info.CAFile)
	ctl := shown(filepath.Join(c.Bin, "shoalctl"))
	if c.Data != filepath.Join(filepath.Dir(c.Bin), "var") {
		ctl += " --data " + shown(c.Data)
	}
	p("")
	p("Shoal %s runs on this machine. Host 127.0.0.1 (or localhost), ports:", c.Version)
	p("  SMTP        %s    submission  %s (STARTTLS), %s (TLS)", port(info.Services["smtp"]), port(info.Services["submission"]), port(info.Services["submissions"]))
	p("  IMAP        %s (STARTTLS), %s (TLS)", port(info.Services["imap"]), port(info.Services["imaps"]))
	p("  POP3        %s (STARTTLS), %s (TLS)", port(info.Services["pop3"]), port(info.Services["pop3s"]))
	p("  ManageSieve %s (STARTTLS)", port(info.Services["managesieve"]))
	p("  LDAP        %s (STARTTLS), %s (TLS)", port(info.Services["ldap"]), port(info.Services["ldaps"]))
	p("Accounts and passwords (also in %s); certificates are of the CA in %s:", shown(c.usersFile()), ca)
	for _, u := range info.Users {
		p("  %-20s  %s", u.Address, u.Password)
	}
	p("")
	p("Send a mail:")
	p("  swaks --server %s --from you@example.org --to %s --header 'Subject: hello'", info.Services["smtp"], first.Address)
	p("  printf 'Subject: hello\\r\\n\\r\\nFrom curl.\\r\\n' | curl smtp://%s --mail-from you@example.org --mail-rcpt %s -T -", info.Services["smtp"], first.Address)
	p("Send as %s, logged in:", first.Address)
	p("  printf 'From: %s\\r\\nSubject: hello\\r\\n\\r\\nHi.\\r\\n' | curl --ssl-reqd --cacert %s smtp://localhost:%s --user '%s:%s' --mail-from %s --mail-rcpt %s -T -",
		first.Address, ca, port(info.Services["submission"]), first.Address, first.Password, first.Address, info.Users[len(info.Users)-1].Address)
	p("Read:")
	p("  curl --cacert %s --user '%s:%s' 'imaps://localhost:%s/INBOX;MAILINDEX=*'", ca, first.Address, first.Password, port(info.Services["imaps"]))
	p("  mbsync -c %s -a        # copies the mail of each account to %s", shown(rc), shown(c.path("maildir")))
	if missing := absent("swaks", "curl", "mbsync"); len(missing) > 0 {
		p("(%s: not installed here; on Debian: apt-get install swaks curl isync)", strings.Join(missing, ", "))
	}
	p("Look and change:  %s status   %s account add carol@%s   %s help", ctl, ctl, demoDomain, ctl)
	if c.Quiet {
		p("Stop:  %s down. Mail and accounts stay.", ctl)
	} else {
		p("Stop:  Ctrl-C here, or make down. Mail and accounts stay.")
	}
	p("")
	return b.String()
}

// absent are those programs that this machine has not.
func absent(programs ...string) []string {
	return slices.DeleteFunc(programs, func(name string) bool {
		_, err := exec.LookPath(name)
		return err == nil
	})
}

// maildir is where the printed mbsync command copies an account's mail.
func (l Layout) maildir(u User) string {
	name, _, _ := strings.Cut(u.Address, "@")
	return l.path("maildir", name)
}

// mbsyncrc lets mbsync copy each demo account.
func (l Layout) mbsyncrc(users []User) string {
	var b strings.Builder
	for _, u := range users {
		name, _, _ := strings.Cut(u.Address, "@")
		fmt.Fprintf(&b, `IMAPStore %[1]s-there
Host localhost
Port %[2]s
User %[3]s
Pass %[4]s
SSLType IMAPS
CertificateFile %[5]s

MaildirStore %[1]s-here
Path %[6]s/
Inbox %[6]s/INBOX
SubFolders Verbatim

Channel %[1]s
Far :%[1]s-there:
Near :%[1]s-here:
Patterns *
Create Near
SyncState *

`, name, port(l.front(portIMAPS)), u.Address, u.Password, strconv.Quote(l.CAFile()), l.maildir(u))
	}
	return b.String()
}
