package ldapsession

import (
	"bufio"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// openldap runs one of OpenLDAP's clients as the root DN and gives what it prints.
func (f *fixture) openldap(t *testing.T, stdin, program string, args ...string) string {
	t.Helper()
	return f.openldapAs(t, "cn=admin,o=shoal", "secret", stdin, program, args...)
}

func (f *fixture) openldapAs(t *testing.T, dn, password, stdin, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("OpenLDAP's %s is needed: scripts/install-deps ldap-utils: %v", program, err)
	}
	cmd := exec.Command(path, append([]string{"-x", "-H", "ldap://" + f.address, "-D", dn, "-w", password}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = []string{"LDAPNOINIT=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = append(out, "\n"+err.Error()...)
	}
	return string(out)
}

// names of the entries that ldapsearch -LLL printed, in their order.
func printed(out string) string {
	var dns []string
	for line := range strings.Lines(out) {
		if dn, is := strings.CutPrefix(line, "dn: "); is {
			rdn, _, _ := strings.Cut(strings.TrimSpace(dn), ",")
			dns = append(dns, rdn)
		}
	}
	return strings.Join(dns, " ")
}

// people puts entries with surnames into the directory; "-" is none.
func (f *fixture) people(t *testing.T) {
	t.Helper()
	for _, p := range [][3]string{{"p1", "Zoe", "30"}, {"p2", "adam", "7"}, {"p3", "Mia", "100"}, {"p4", "mia", "-"}} {
		a := attributes("objectClass", "inetOrgPerson", "objectClass", "shoalAccount", "cn", p[1], "sn", p[1], "shoalAccountId", "a-"+p[0]+"-a-a-a-a")
		if p[2] != "-" {
			a = append(a, attributes("shoalQuotaMessages", p[2])...)
		}
		if err := f.store.Do("", &dirstore.Add{DN: []byte("uid=" + p[0] + ",ou=people,o=shoal"), Attributes: a}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSortedByOpenLDAP(t *testing.T) {
	f := start(t)
	f.people(t)
	all := []string{"-LLL", "-b", "ou=people,o=shoal", "(uid=p*)", "1.1"}
	for key, want := range map[string]string{
		"sss=sn":                                     "uid=p2 uid=p3 uid=p4 uid=p1",
		"sss=-sn":                                    "uid=p1 uid=p3 uid=p4 uid=p2",
		"sss=sn/-uid":                                "uid=p2 uid=p4 uid=p3 uid=p1",
		"sss=sn:caseExactOrderingMatch":              "uid=p3 uid=p1 uid=p2 uid=p4",
		"sss=shoalQuotaMessages":                     "uid=p2 uid=p1 uid=p3 uid=p4",
		"sss=-shoalQuotaMessages":                    "uid=p4 uid=p3 uid=p1 uid=p2",
		"sss=shoalQuotaMessages/-entryDN":            "uid=p2 uid=p1 uid=p3 uid=p4",
		"sss=noSuchAttribute":                        "uid=p1 uid=p2 uid=p3 uid=p4",
		"sss=-entryUUID:noSuchMatch":                 "uid=p1 uid=p2 uid=p3 uid=p4",
		"sss=-1.1.1.1.1":                             "uid=p1 uid=p2 uid=p3 uid=p4",
		"sss=userPassword":                           "uid=p1 uid=p2 uid=p3 uid=p4",
		"sss=objectClass/shoalAccountId":             "uid=p1 uid=p2 uid=p3 uid=p4",
		"sss=-createTimestamp/-modifyTimestamp/-uid": "uid=p4 uid=p3 uid=p2 uid=p1",
	} {
		if got := printed(f.openldap(t, "", "ldapsearch", append([]string{"-E", key}, all...)...)); got != want {
			t.Errorf("-E %s: %s, want %s", key, got, want)
		}
	}
	list := append([]string{}, "-b", "ou=people,o=shoal", "(uid=p*)", "1.1")
	out := f.openldap(t, "", "ldapsearch", append([]string{"-E", "!sss=noSuch"}, list...)...)
	if !strings.Contains(out, "result: 12") || !strings.Contains(out, "sortResult: (16) No such attribute noSuch") || printed(out) != "" {
		t.Errorf("a critical sort by nothing: %s", out)
	}
	out = f.openldap(t, "", "ldapsearch", append([]string{"-E", "sss=sn", "-E", "pr=1/noprompt"}, list...)...)
	if got := printed(out); got != "uid=p2 uid=p3 uid=p4 uid=p1" || strings.Count(out, "sortResult: (0)") != 4 {
		t.Errorf("pages of a sorted search: %s\n%s", got, out)
	}
}

func TestSortIsBounded(t *testing.T) {
	f := start(t, func(o *Options, _ *Listening) { o.Limits.Sorted = 3 })
	f.people(t)
	out := f.openldap(t, "", "ldapsearch", "-E", "sss=sn", "-b", "ou=people,o=shoal", "(uid=p*)", "1.1")
	if !strings.Contains(out, "result: 11") || !strings.Contains(out, "more than 3 entries to sort") {
		t.Errorf("too many entries: %s", out)
	}
}

// TestListViewByOpenLDAP scrolls through a list with ldapsearch, which asks for the next window again and
// again.
func TestListViewByOpenLDAP(t *testing.T) {
	f := start(t)
	f.people(t)
	cmd := exec.Command("stdbuf", "-oL", "ldapsearch", "-x", "-H", "ldap://"+f.address, "-D", "cn=admin,o=shoal", "-w", "secret",
		"-E", "!sss=sn/uid", "-E", "!vlv=1/0/2/0", "-b", "ou=people,o=shoal", "(uid=p*)", "1.1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it asks for ever
		_ = cmd.Wait()
	}()
	read := bufio.NewReader(out)
	for _, c := range []struct{ ask, names, position string }{
		{"", "uid=p2 uid=p3", "vlvResult: pos=2 count=4"},
		{"0/1:mia", "uid=p3 uid=p4", "vlvResult: pos=2 count=4"},
		{"0/0:n", "uid=p1", "vlvResult: pos=4 count=4"},
		{"1/0:zz", "uid=p1", "vlvResult: pos=5 count=4"},
		{"0/0/1/4", "uid=p2", "vlvResult: pos=1 count=4"},
		{"0/5/99/100", "uid=p4 uid=p1", "vlvResult: pos=3 count=4"},
	} {
		if c.ask != "" {
			fmt.Fprintln(in, c.ask)
		}
		text := ""
		for !strings.Contains(text, "next window") {
			line, err := read.ReadString('\n')
			if text += line; err != nil {
				t.Fatalf("window %q: %v\n%s", c.ask, err, text)
			}
		}
		if got := printed(text); got != c.names || !strings.Contains(text, c.position) {
			t.Errorf("window %q: %s, want %s %s\n%s", c.ask, got, c.names, c.position, text)
		}
	}
}

// attributes makes a list of "type", "value" pairs.
func attributes(pairs ...string) (list []ldapwire.Attribute) {
	for i := 0; i < len(pairs); i += 2 {
		j := slices.IndexFunc(list, func(a ldapwire.Attribute) bool { return string(a.Type) == pairs[i] })
		if j < 0 {
			j = len(list)
			list = append(list, ldapwire.Attribute{Type: []byte(pairs[i])})
		}
		list[j].Values = append(list[j].Values, []byte(pairs[i+1]))
	}
	return list
}
