package ldapsession

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// policed is a server with a password policy, whose time is the test's, and Debian's LDAP tools.
type policed struct {
	*fixture
	t     *testing.T
	clock *clock.Fake
	told  atomic.Int64 // changes of state that were written
}

const (
	policyDN = "cn=default,ou=policies,o=shoal"
	aliceDN  = "uid=alice,ou=people,o=shoal"
	bobDN    = "uid=bob,ou=people,o=shoal"
	rootDN   = "cn=admin,o=shoal"
)

// startPolicy starts a server whose default policy has these attributes ("pwdLockout: TRUE"); without any there is none.
func startPolicy(t *testing.T, attributes ...string) *policed {
	t.Helper()
	p := &policed{t: t, clock: clock.NewFake(time.Now().Truncate(time.Second))}
	p.fixture = start(t, func(o *Options, _ *Listening) {
		o.Clock, o.PolicyDN, o.Policy = p.clock, policyDN, &Policy{Quality: 1, MinLength: 8}
		o.Passwords.Remember(time.Hour, 100, p.clock) // it must change nothing
		o.Unruled = func(norm []byte) bool { return strings.HasPrefix(string(norm), "cn=box1,") }
		write := Report(o.Store, o.RootDN)
		o.Report = func(ctx context.Context, list []StateChange) error {
			p.told.Add(int64(len(list)))
			return write(ctx, list)
		}
	})
	if len(attributes) > 0 {
		p.must(p.tool("dn: ou=policies,o=shoal\nobjectClass: organizationalUnit\n\n"+policyEntry("default", attributes...), "ldapadd", rootDN, "secret"))
	}
	return p
}

func policyEntry(name string, attributes ...string) string {
	return "dn: cn=" + name + ",ou=policies,o=shoal\nobjectClass: applicationProcess\nobjectClass: pwdPolicy\npwdAttribute: userPassword\n" +
		strings.Join(attributes, "\n") + "\n"
}

// answer is what a tool printed, and its exit code.
type answer struct {
	out  string
	code int
}

// tool runs one of Debian's ldap-utils as dn.
func (p *policed) tool(stdin, name, dn, password string, args ...string) answer {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, append([]string{"-x", "-e", "ppolicy", "-H", "ldap://" + p.address, "-D", dn, "-w", password}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("%s: %v", name, err)
	}
	return answer{string(out), cmd.ProcessState.ExitCode()}
}

func (p *policed) must(a answer) {
	p.t.Helper()
	if a.code != 0 {
		p.t.Fatalf("exit code %d\n%s", a.code, a.out)
	}
}

// expect compares the exit code, which is the result code (but ldappasswd's is 1, and it prints the result), and looks for text
// in the output.
func (p *policed) expect(what string, a answer, code int, text string) {
	p.t.Helper()
	if a.code != code && !(a.code == 1 && strings.Contains(a.out, fmt.Sprintf("(%d)", code))) || !strings.Contains(strings.ToLower(a.out), strings.ToLower(text)) {
		p.t.Errorf("%s: exit code %d, want %d and %q:\n%s", what, a.code, code, text, a.out)
	}
}

func (p *policed) login(dn, password string) answer { return p.tool("", "ldapwhoami", dn, password) }

// own changes one's own password with ldappasswd.
func (p *policed) own(dn, old, fresh string) answer {
	p.t.Helper()
	return p.tool("", "ldappasswd", dn, old, "-a", old, "-s", fresh)
}

func (p *policed) modify(dn, changes string) answer {
	p.t.Helper()
	return p.tool("dn: "+dn+"\nchangetype: modify\n"+changes+"\n", "ldapmodify", rootDN, "secret")
}

// state gives the operational attributes of an entry.
func (p *policed) state(dn string) string {
	p.t.Helper()
	a := p.tool("", "ldapsearch", rootDN, "secret", "-LLL", "-b", dn, "-s", "base", "+", "*")
	p.must(a)
	return a.out
}

// settle waits until what was seen of logins is in the directory: when the third token is taken up, what was begun after
// the first one is done.
func (p *policed) settle() {
	p.t.Helper()
	for range 3 {
		p.server.failures.now <- struct{}{}
	}
}

const (
	invalid    = 49
	constraint = 19
	locked     = "Account locked"
)

// Without a policy entry nobody is locked out, no login is written down, and passwords that users choose have eight
// characters, and are not their names.
func TestNoPolicyEntry(t *testing.T) {
	p := startPolicy(t)
	for range 40 {
		p.expect("a wrong password", p.login(aliceDN, "wrong"), invalid, "Invalid credentials")
	}
	p.clock.Advance(10 * 365 * 24 * time.Hour)
	a := p.login(aliceDN, "alicepass")
	p.expect("the password, years later", a, 0, "dn:"+aliceDN)
	if strings.Contains(a.out, "ppolicy") || strings.Contains(a.out, "xpire") {
		t.Errorf("the control says something:\n%s", a.out)
	}
	p.settle()
	if n := p.told.Load(); n != 0 {
		t.Errorf("%d writes for logins", n)
	}
	if s := p.state(aliceDN); strings.Contains(s, "pwd") {
		t.Errorf("state without a policy:\n%s", s)
	}
	p.expect("too short", p.own(aliceDN, "alicepass", "sevench"), constraint, "too short")
	p.expect("one character", p.own(aliceDN, "alicepass", "aaaaaaaaaa"), constraint, "quality")
	p.expect("eight characters of two octets", p.own(aliceDN, "alicepass", "äöüßäöüß"), 0, "")
	p.expect("a short one by the root DN", p.tool("", "ldappasswd", rootDN, "secret", "-s", "short", aliceDN), 0, "")
	p.expect("and its login", p.login(aliceDN, "short"), 0, "dn:"+aliceDN)
	// An administrator may lock by hand.
	p.must(p.modify(aliceDN, "add: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z"))
	p.expect("locked by hand", p.login(aliceDN, "short"), invalid, locked)
	p.must(p.modify(aliceDN, "delete: pwdAccountLockedTime"))
	p.expect("unlocked by hand", p.login(aliceDN, "short"), 0, "dn:"+aliceDN)
}

// Failures lock an account, also against the right password, until the lock's time is over or an administrator takes
// it away; the root DN is never locked, nor are those whom no policy rules.
func TestLockout(t *testing.T) {
	p := startPolicy(t, "pwdLockout: TRUE", "pwdMaxFailure: 3", "pwdLockoutDuration: 600")
	fail := func(dn string, n int) {
		t.Helper()
		for range n {
			p.expect("a wrong password", p.login(dn, "wrong"), invalid, "Invalid credentials")
			p.clock.Advance(time.Millisecond)
		}
	}
	fail(aliceDN, 2)
	p.expect("after two failures", p.login(aliceDN, "alicepass"), 0, "dn:")
	fail(aliceDN, 2)
	p.expect("a good login forgets failures", p.login(aliceDN, "alicepass"), 0, "dn:")
	fail(aliceDN, 2)
	a := p.login(aliceDN, "wrong")
	p.expect("the third failure", a, invalid, "Invalid credentials")
	p.expect("the password of a locked account", p.login(aliceDN, "alicepass"), invalid, locked)
	p.expect("another account", p.login(bobDN, "bobpass"), 0, "dn:")
	p.settle()
	if s := p.state(aliceDN); strings.Count(s, "pwdFailureTime:") != 3 || strings.Count(s, "pwdAccountLockedTime: ") != 1 || strings.Contains(s, "pwdHistory") {
		t.Errorf("state of a locked account:\n%s", s)
	}
	p.expect("locked, in the directory", p.login(aliceDN, "alicepass"), invalid, locked)
	p.clock.Advance(9 * time.Minute)
	p.expect("before the end", p.login(aliceDN, "alicepass"), invalid, locked)
	p.clock.Advance(2 * time.Minute)
	p.expect("after the end", p.login(aliceDN, "alicepass"), 0, "dn:")
	p.settle()
	if s := p.state(aliceDN); strings.Contains(s, "pwdFailureTime") || strings.Contains(s, "pwdAccountLockedTime") {
		t.Errorf("state after a good login:\n%s", s)
	}
	// By an administrator.
	fail(aliceDN, 3)
	p.expect("locked again", p.login(aliceDN, "alicepass"), invalid, locked)
	p.settle()
	p.must(p.modify(aliceDN, "delete: pwdAccountLockedTime"))
	fail(aliceDN, 1)
	p.expect("unlocked, and the failures forgotten", p.login(aliceDN, "alicepass"), 0, "dn:")
	fail(aliceDN, 3)
	p.must(p.tool("", "ldappasswd", rootDN, "secret", "-s", "newpassword", aliceDN))
	p.expect("a new password unlocks", p.login(aliceDN, "newpassword"), 0, "dn:")
	p.settle()
	fail(rootDN, 10)
	p.expect("the root DN", p.login(rootDN, "secret"), 0, "dn:"+rootDN)
	// A policy of its own.
	p.must(p.tool(policyEntry("lenient", "pwdLockout: FALSE", "pwdMaxFailure: 1"), "ldapadd", rootDN, "secret"))
	p.must(p.modify(bobDN, "add: pwdPolicySubentry\npwdPolicySubentry: cn=lenient,ou=policies,o=shoal"))
	fail(bobDN, 10)
	p.expect("under a policy that does not lock", p.login(bobDN, "bobpass"), 0, "dn:")
	// One of the entry above.
	p.must(p.modify(bobDN, "delete: pwdPolicySubentry"))
	p.must(p.modify("ou=people,o=shoal", "add: pwdPolicySubentry\npwdPolicySubentry: cn=lenient,ou=policies,o=shoal"))
	fail(bobDN, 10)
	p.expect("under the policy of the entry above", p.login(bobDN, "bobpass"), 0, "dn:")
}

// Failures that are older than the interval do not count.
func TestFailureInterval(t *testing.T) {
	p := startPolicy(t, "pwdLockout: TRUE", "pwdMaxFailure: 3", "pwdLockoutDuration: 0", "pwdFailureCountInterval: 60")
	for range 6 {
		p.expect("a wrong password", p.login(aliceDN, "wrong"), invalid, "")
		p.clock.Advance(31 * time.Second)
	}
	p.expect("two failures a minute", p.login(aliceDN, "alicepass"), 0, "dn:")
	for range 3 {
		p.expect("a wrong password", p.login(aliceDN, "wrong"), invalid, "")
		p.clock.Advance(time.Second)
	}
	p.clock.Advance(1000 * time.Hour)
	p.expect("locked without end", p.login(aliceDN, "alicepass"), invalid, locked)
}

// Somebody who guesses costs one write for each account and interval, and one for the lock; who logs in costs none.
func TestGuessesAreWrittenTogether(t *testing.T) {
	p := startPolicy(t, "pwdLockout: TRUE", "pwdMaxFailure: 25", "pwdLockoutDuration: 600")
	for range 24 {
		p.login(aliceDN, "wrong")
		p.clock.Advance(time.Microsecond)
	}
	if n := p.told.Load(); n != 0 {
		t.Errorf("%d writes before the interval is over", n)
	}
	p.settle()
	if n := p.told.Load(); n != 1 {
		t.Errorf("24 failures made %d writes, want 1", n)
	}
	for range 30 {
		p.login(aliceDN, "wrong")
		p.clock.Advance(time.Microsecond)
	}
	p.settle()
	if n := p.told.Load(); n != 2 {
		t.Errorf("a lock and the guesses after it: %d writes, want 2", n)
	}
	if s := p.state(aliceDN); strings.Count(s, "pwdFailureTime:") != 25 {
		t.Errorf("not 25 failures:\n%s", s)
	}
	for range 20 {
		p.login(bobDN, "bobpass")
	}
	p.settle()
	if n := p.told.Load(); n != 2 {
		t.Errorf("good logins made %d writes", n-2)
	}
	// A shadow keeps adding: what the master keeps is bounded.
	for i := range 3 {
		var values strings.Builder
		for j := range 20 {
			fmt.Fprintf(&values, "pwdFailureTime: 203001010000%02d.%06dZ\n", i, j)
		}
		p.must(p.modify(bobDN, "add: pwdFailureTime\n"+values.String()))
	}
	if s := p.state(bobDN); strings.Count(s, "pwdFailureTime:") != maxRecorded || !strings.Contains(s, "pwdFailureTime: 20300101000002.000019Z") {
		t.Errorf("not the newest %d failures:\n%s", maxRecorded, s)
	}
}

// Passwords that were used are refused, as many as the policy says.
func TestHistory(t *testing.T) {
	p := startPolicy(t, "pwdInHistory: 2", "pwdCheckQuality: 1", "pwdMinLength: 9", "pwdMaxLength: 20")
	p.expect("too short", p.own(aliceDN, "alicepass", "12345678"), constraint, "too short")
	p.expect("too long", p.own(aliceDN, "alicepass", strings.Repeat("0123456789", 3)), constraint, "long")
	p.expect("one's name", p.own(aliceDN, "alicepass", "alice@a.test"), constraint, "quality")
	p.expect("the one in use", p.own(aliceDN, "alicepass", "alicepass"), constraint, "list of old passwords")
	now := "alicepass"
	for _, next := range []string{"password one", "password two", "password three"} {
		p.clock.Advance(time.Second)
		p.expect(next, p.own(aliceDN, now, next), 0, "")
		now = next
	}
	p.expect("the last but one", p.own(aliceDN, now, "password one"), constraint, "list of old passwords")
	p.expect("one that is forgotten", p.own(aliceDN, now, "alicepass"), 0, "")
	if s := p.state(aliceDN); strings.Contains(s, "pwdHistory") || strings.Count(s, "pwdChangedTime: ") != 1 {
		t.Errorf("hashes are shown, or no pwdChangedTime:\n%s", s)
	}
	p.expect("the root DN may give an old one", p.tool("", "ldappasswd", rootDN, "secret", "-s", "password three", aliceDN), 0, "")
}

// An expired password lets in so often as the policy says, with a warning before; accounts whose password is older than the
// policy do not expire.
func TestExpiry(t *testing.T) {
	p := startPolicy(t, "pwdMaxAge: 86400", "pwdExpireWarning: 3600", "pwdGraceAuthNLimit: 2", "pwdMinAge: 60")
	p.clock.Advance(48 * time.Hour)
	p.expect("a password from before the policy", p.login(aliceDN, "alicepass"), 0, "dn:")
	p.expect("its change", p.own(aliceDN, "alicepass", "alicepass2"), 0, "")
	p.expect("too young", p.own(aliceDN, "alicepass2", "alicepass3"), constraint, "too recently")
	p.expect("too young, and made by the server", p.tool("", "ldappasswd", aliceDN, "alicepass2", "-a", "alicepass2"), constraint, "too recently")
	p.clock.Advance(22 * time.Hour)
	a := p.login(aliceDN, "alicepass2")
	p.expect("two hours before the end", a, 0, "dn:")
	if strings.Contains(a.out, "xpire") {
		t.Errorf("warned too early:\n%s", a.out)
	}
	p.clock.Advance(90 * time.Minute)
	p.expect("half an hour before the end", p.login(aliceDN, "alicepass2"), 0, "expires in 1800 seconds")
	p.clock.Advance(time.Hour)
	p.expect("the first grace login", p.login(aliceDN, "alicepass2"), 0, "1 grace login")
	p.settle()
	p.clock.Advance(time.Second)
	p.expect("the second grace login", p.login(aliceDN, "alicepass2"), 0, "0 grace login")
	p.expect("no third, at once", p.login(aliceDN, "alicepass2"), invalid, "Password expired")
	p.settle()
	p.clock.Advance(time.Minute)
	p.settle() // what is known is forgotten here: the directory has it
	p.expect("no third, later", p.login(aliceDN, "alicepass2"), invalid, "Password expired")
	if s := p.state(aliceDN); strings.Count(s, "pwdGraceUseTime: ") != 2 {
		t.Errorf("not two grace logins:\n%s", s)
	}
	p.must(p.tool("", "ldappasswd", rootDN, "secret", "-s", "another pass", aliceDN))
	a = p.login(aliceDN, "another pass")
	p.expect("a new password", a, 0, "dn:")
	if strings.Contains(a.out, "grace") || strings.Contains(p.state(aliceDN), "pwdGraceUseTime") {
		t.Errorf("grace logins are left:\n%s", a.out)
	}
}

// Whose password somebody else set changes it before anything else.
func TestMustChange(t *testing.T) {
	p := startPolicy(t, "pwdMustChange: TRUE")
	p.expect("a password from before the policy", p.login(aliceDN, "alicepass"), 0, "dn:")
	p.must(p.tool("", "ldappasswd", rootDN, "secret", "-s", "given by root", aliceDN))
	if s := p.state(aliceDN); !strings.Contains(s, "pwdReset: TRUE") {
		t.Errorf("no pwdReset:\n%s", s)
	}
	p.expect("a login", p.login(aliceDN, "given by root"), 50, "must be changed")
	p.expect("a search", p.tool("", "ldapsearch", aliceDN, "given by root", "-b", aliceDN, "-s", "base"), 50, "must be changed")
	p.expect("the change", p.own(aliceDN, "given by root", "my own choice"), 0, "")
	p.expect("afterwards", p.login(aliceDN, "my own choice"), 0, "dn:")
	if s := p.state(aliceDN); strings.Contains(s, "pwdReset") {
		t.Errorf("pwdReset is left:\n%s", s)
	}
	// On the connection that changed it, too.
	p.must(p.tool("", "ldappasswd", rootDN, "secret", "-s", "given again", aliceDN))
	c := p.bound(t, aliceDN, "given again")
	if _, err := c.WhoAmI(nil); codeOf(err) != 50 {
		t.Errorf("before the change: %v", err)
	}
	changed := p.own(aliceDN, "given again", "my other choice")
	p.must(changed)
	// No change of one's own where the policy forbids it, by a password of the server's making neither.
	p.must(p.modify(policyDN, "add: pwdAllowUserChange\npwdAllowUserChange: FALSE"))
	p.expect("forbidden", p.own(aliceDN, "my other choice", "something else"), 50, "not")
	p.expect("forbidden, made by the server", p.tool("", "ldappasswd", aliceDN, "my other choice", "-a", "my other choice"), 50, "not")
}

// An account that an administrator locked for good does not unlock itself by changing its password on a connection that it
// has open.
func TestLockedForGood(t *testing.T) {
	p := startPolicy(t, "pwdLockout: TRUE", "pwdMaxFailure: 3")
	own := p.bound(t, aliceDN, "alicepass")
	p.must(p.modify(aliceDN, "add: pwdAccountLockedTime\npwdAccountLockedTime: "+lockedForever))
	if _, err := own.PasswordModify(passwordRequest("alicepass", "my own choice")); err != nil {
		t.Fatal(err)
	}
	p.expect("with the new password", p.login(aliceDN, "my own choice"), invalid, locked)
}

// Whom no policy rules has no state, and is not locked out.
func TestUnruled(t *testing.T) {
	p := startPolicy(t, "pwdLockout: TRUE", "pwdMaxFailure: 2")
	box := "cn=box1,o=shoal"
	for range 5 {
		p.login(box, "wrong")
	}
	p.settle()
	p.expect("a server", p.login(box, "boxpass"), 0, "dn:"+box)
	// A time that was left there, or put there, does not lock it either.
	if err := p.store.Do(rootDN, &dirstore.Modify{DN: []byte(box), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace, Attribute: ldapwire.Attribute{
		Type: []byte("pwdAccountLockedTime"), Values: [][]byte{[]byte(p.clock.Now().UTC().Format(policyTime))}}}}}); err != nil {
		t.Fatal(err)
	}
	p.expect("a server with a time", p.login(box, "boxpass"), 0, "dn:"+box)
	if n := p.told.Load(); n != 0 {
		t.Errorf("%d writes", n)
	}
}
