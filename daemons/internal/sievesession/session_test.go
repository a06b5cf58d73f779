package sievesession

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const greeting = `open 1 sieve
S1: "IMPLEMENTATION" "Shoal"
S1: "VERSION" "1.0"
S1: "SASL" ""
S1: "STARTTLS"
S1: "SIEVE" "body {{.*}} virustest"
S1: "NOTIFY" "mailto"
S1: "MAXREDIRECTS" "7"
S1: "LANGUAGE" "en"
S1: "UNAUTHENTICATE"
S1: OK "{{.*}}"
`

const secure = `C1: STARTTLS
S1: OK {{.*}}
starttls 1
S1: "IMPLEMENTATION" "Shoal"
S1: "VERSION" "1.0"
S1: "SASL" "{{.*}}PLAIN LOGIN OAUTHBEARER XOAUTH2"
S1: "SIEVE" "{{.*}}"
S1: "NOTIFY" "mailto"
S1: "MAXREDIRECTS" "7"
S1: "LANGUAGE" "en"
S1: "UNAUTHENTICATE"
S1: OK {{.*}}
`

// NUL alice NUL secret word
const login = greeting + secure + `C1: AUTHENTICATE "PLAIN" "AGFsaWNlQGV4YW1wbGUudGVzdABzZWNyZXQgd29yZA=="
S1: OK "Logged in"
`

func TestScriptsOverTheWire(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Scripts = 2; o.Limits.ScriptSize = 200 })
	r.run(login + `C1: LISTSCRIPTS
S1: OK
C1: HAVESPACE "main" 200
S1: OK
C1: HAVESPACE "main" 201
S1: NO (QUOTA/MAXSIZE) "A script may have 200 bytes at most"
C1: PUTSCRIPT "main" {5+}
C1: keep;
S1: OK "Stored"
C1: CHECKSCRIPT "stop; keep;"
S1: OK (WARNINGS) "line 1, column 7: nothing behind stop is ever done"
C1: PUTSCRIPT "main" {12+}
C1: stop;
C1: keep;
S1: OK (WARNINGS) "line 2, column 1: nothing behind stop is ever done"
C1: NOOP "a tag"
S1: OK (TAG "a tag") "Done"
C1: PUTSCRIPT "main" {5+}
C1: keep;
S1: OK "Stored"
C1: PUTSCRIPT "bad" "keep; foo; bar \"x\";"
S1: NO {81}
S1: line 1, column 7: unknown command "foo"
S1: line 1, column 12: unknown command "bar"
C1: CHECKSCRIPT "if"
S1: NO "line 1, column 3: expected \";\" behind the command if, found the end of the script"
C1: CHECKSCRIPT "keep;"
S1: OK
C1: SETACTIVE "none"
S1: NO (NONEXISTENT) {{.*}}
C1: SETACTIVE "main"
S1: OK
C1: PUTSCRIPT "weg \"1\"" "stop;\\"
S1: NO {{.*}}
C1: PUTSCRIPT "weg \"1\"" "stop;"
S1: OK {{.*}}
C1: PUTSCRIPT "third" "stop;"
S1: NO (QUOTA/MAXSCRIPTS) {{.*}}
C1: PUTSCRIPT "main" "keep;"
S1: OK {{.*}}
C1: LISTSCRIPTS
S1: "main" ACTIVE
S1: "weg \"1\""
S1: OK
C1: GETSCRIPT "weg \"1\""
S1: {5}
S1: stop;
S1: OK
C1: GETSCRIPT "none"
S1: NO (NONEXISTENT) {{.*}}
C1: RENAMESCRIPT "main" "weg \"1\""
S1: NO (ALREADYEXISTS) {{.*}}
C1: RENAMESCRIPT "main" "a/b"
S1: NO "A script cannot have that name"
C1: PUTSCRIPT "" "keep;"
S1: NO {{.*}}
C1: RENAMESCRIPT "main" "home"
S1: OK
C1: DELETESCRIPT "home"
S1: NO (ACTIVE) {{.*}}
C1: SETACTIVE ""
S1: OK
C1: DELETESCRIPT "home"
S1: OK
C1: DELETESCRIPT "home"
S1: NO (NONEXISTENT) {{.*}}
C1: NOOP "tag \"1\""
S1: OK (TAG "tag \"1\"") "Done"
C1: UNAUTHENTICATE
S1: OK {{.*}}
C1: LISTSCRIPTS
S1: NO "Log in first"
C1: LOGOUT
S1: OK {{.*}}
eof 1
`)
}

func TestLogins(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.LoginFailures = 3 })
	r.run(greeting + `C1: AUTHENTICATE "PLAIN" "AGFsaWNlAHNlY3JldCB3b3Jk"
S1: NO (ENCRYPT-NEEDED) {{.*}}
` + secure + `C1: STARTTLS
S1: NO "TLS is active already"
C1: AUTHENTICATE "CRAM-MD5"
S1: NO {{.*}}
C1: AUTHENTICATE "PLAIN" "AGFsaWNlAHdyb25n"
S1: NO "User name or password is wrong"
C1: AUTHENTICATE "PLAIN"
S1: ""
C1: "*"
S1: NO "Authentication given up"
C1: AUTHENTICATE "PLAIN"
S1: ""
C1: "!"
S1: NO "Malformed base64"
C1: AUTHENTICATE "PLAIN" {8+}
C1: YWxpY2U=
S1: NO "Malformed response"
C1: AUTHENTICATE "PLAIN" "Ym9iAGFsaWNlAHNlY3JldCB3b3Jk"
S1: NO "Acting for another user is not possible"
C1: AUTHENTICATE "PLAIN" "AGJ1c3kAc2VjcmV0IHdvcmQ="
S1: NO (TRYLATER) {{.*}}
C1: AUTHENTICATE "PLAIN" "AGhvbWVsZXNzAHNlY3JldCB3b3Jk"
S1: NO (TRYLATER) {{.*}}
C1: AUTHENTICATE "PLAIN" "AHN1c3BlbmRlZABzZWNyZXQgd29yZA=="
S1: NO "The account is suspended"
S1: BYE "Too many failed logins"
eof 1
`)
	r.run(greeting + secure + `C1: AUTHENTICATE "LOGIN"
S1: "VXNlcm5hbWU6"
C1: "YWxpY2VAZXhhbXBsZS50ZXN0"
S1: "UGFzc3dvcmQ6"
C1: {16+}
C1: c2VjcmV0IHdvcmQ=
S1: OK "Logged in"
C1: CAPABILITY
S1: "IMPLEMENTATION" "Shoal"
S1: "VERSION" "1.0"
S1: "OWNER" "alice@example.test"
S1: "SIEVE" "{{.*}}"
S1: "NOTIFY" "mailto"
S1: "MAXREDIRECTS" "7"
S1: "LANGUAGE" "en"
S1: "UNAUTHENTICATE"
S1: OK
C1: AUTHENTICATE "PLAIN"
S1: NO "AUTHENTICATE is not possible after the login"
`)
	if n := r.value("shoal_managesieve_logins_total"); n != 5 {
		t.Errorf("%v logins were counted", n)
	}
}

// What is sent behind STARTTLS without protection is not taken for the user's.
func TestInjectedCommands(t *testing.T) {
	newRig(t, nil).run(greeting + `C1!: STARTTLS\r\nNOOP\r\n
S1: BYE "Commands behind STARTTLS were sent without protection"
eof 1
`)
}

func TestBadInput(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.BadCommands = 1000; o.Limits.ScriptSize = 1 << 10 })
	var b strings.Builder
	b.WriteString(login)
	for _, line := range []string{
		"FROB", "PUTSCRIPT", "PUTSCRIPT \"a\"", "(x)", " NOOP", "NOOP  \"x\"", "NOOP x", "NOOP \"\\x\"", "NOOP \"a\x00\"", "NOOP 99999999999",
		"NOOP \"\xff\"", "NOOP \"x\" \"y\"", "NOOP\rx", "NOOP \"" + strings.Repeat("x", 1025) + "\"", strings.Repeat("A", 100), "HAVESPACE \"x\" \"y\"",
		"PUTSCRIPT " + strings.Repeat("\"a\" ", 9) + "\"a\"",
	} {
		b.WriteString("C1!: " + strings.NewReplacer(`\`, `\\`, "\r", `\r`, "\x00", `\x00`, "\xff", `\xff`).Replace(line) + "\\r\\n\nS1: NO {{.*}}\n")
	}
	b.WriteString(`C1: PUTSCRIPT "a" {2000+}
C1: ` + strings.Repeat("x", 1998) + `
C1: 
S1: NO "the literal is larger than 1024 bytes"
C1: FROB( {5+}
C1: keep;
S1: NO {{.*}}
C1: NOOP
S1: OK "Done"
C1: NOOP {5}
eof 1
`)
	r.run(b.String())
	r.run(login + "C1: NOOP {99999999999999999999+}\neof 1\n")
	few := newRig(t, func(o *Options) { o.Limits.BadCommands = 2; o.Limits.PreLoginCommands = 3 })
	few.run(greeting + "C1: FROB\nS1: NO {{.*}}\nC1: FROB\nS1: NO {{.*}}\nS1: BYE {{.*}}\neof 1\n")
	few.run(greeting + "C1: NOOP\nS1: OK {{.*}}\nC1: NOOP\nS1: OK {{.*}}\nC1: NOOP\nS1: OK {{.*}}\nS1: BYE {{.*}}\neof 1\n")
}

func TestTooManyConnections(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MaxPerAddress = 1 })
	r.run(greeting + `open 2 sieve
S2: BYE (TRYLATER) "Too many connections, try again later"
eof 2
C1: NOOP
S1: OK {{.*}}
`)
}

// A shutdown ends sessions that wait, and says so.
func TestShutdown(t *testing.T) {
	r := newRig(t, nil)
	c, err := r.dial()
	must(t, err)
	defer c.Close()
	in := bufio.NewReader(c)
	for line := ""; !strings.HasPrefix(line, "OK"); {
		line, err = in.ReadString('\n')
		must(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	must(t, r.srv.Shutdown(ctx))
	rest, err := io.ReadAll(in)
	if err != nil || !strings.HasPrefix(string(rest), "BYE (TRYLATER)") {
		t.Errorf("%q %v", rest, err)
	}
}

// A client that we did not write puts, lists, activates and fetches scripts.
func TestSieveConnect(t *testing.T) {
	tool, err := exec.LookPath("sieve-connect")
	if err != nil {
		t.Fatalf("sieve-connect is needed: make install-deps: %v", err)
	}
	r := newRig(t, nil)
	dir := t.TempDir()
	script := "require \"fileinto\";\nif header :contains \"subject\" \"é\" { fileinto \"x\"; }\n"
	must(t, os.WriteFile(filepath.Join(dir, "rules.sieve"), []byte(script), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "bad.sieve"), []byte("fileinto \"x\";\n"), 0o600))
	run := func(args ...string) (string, error) {
		t.Helper()
		host, port, _ := strings.Cut(r.addr, ":")
		cmd := exec.Command(tool, append([]string{"--server", host, "--port", port, "--user", "alice@example.test",
			"--authmech", "PLAIN", "--passwordfd", "3", "--tlscafile", r.caFile}, args...)...)
		cmd.Dir = dir
		pr, pw, err := os.Pipe()
		must(t, err)
		defer pr.Close()
		_, err = pw.WriteString("secret word\n")
		must(t, err)
		pw.Close()
		cmd.ExtraFiles = []*os.File{pr}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--localsieve", "rules.sieve", "--remotesieve", "rules", "--upload"}, ""},
		{[]string{"--remotesieve", "rules", "--activate"}, ""},
		{[]string{"--list"}, `"rules" ACTIVE`},
		{[]string{"--remotesieve", "rules", "--localsieve", "back.sieve", "--download"}, ""},
		{[]string{"--localsieve", "rules.sieve", "--remotesieve", "other", "--upload"}, ""},
		{[]string{"--localsieve", "rules.sieve", "--checkscript"}, ""},
		{[]string{"--deactivate"}, ""},
		{[]string{"--list"}, `"rules"` + "\n"},
		{[]string{"--remotesieve", "other", "--delete"}, ""},
	} {
		out, err := run(c.args...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Fatalf("%v: %v\n%s", c.args, err, out)
		}
	}
	back, err := os.ReadFile(filepath.Join(dir, "back.sieve"))
	if err != nil || string(bytes.ReplaceAll(back, []byte("\r\n"), []byte("\n"))) != script {
		t.Errorf("%q %v", back, err)
	}
	out, err := run("--localsieve", "bad.sieve", "--remotesieve", "bad", "--upload")
	if err == nil || !strings.Contains(out, `line 1, column 1: fileinto needs: require \"fileinto\"`) {
		t.Errorf("a bad script: %v\n%s", err, out)
	}
}

// The reader of commands never hangs, never takes more than it may, and finds the next command again.
func FuzzReadCommand(f *testing.F) {
	for _, s := range []string{"NOOP\r\n", "PUTSCRIPT \"a\" {5+}\r\nkeep;\r\n", "X {3+}\r\nabc {2+}\r\nab\r\n", "HAVESPACE \"a\" 12\n", "A \"\\\"\\\\\"\r\n", "\r\n", "A {9+}\r\n", "A{1+}\r\nb(\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		for range len(data) + 2 {
			c, err := readCommand(r, 64)
			var bad badSyntax
			switch {
			case err == nil:
				if c.name == "" || len(c.args) > maxArgs {
					t.Fatalf("%q", c)
				}
				for _, a := range c.args {
					if len(a) > maxQuoted {
						t.Fatalf("an argument of %d bytes", len(a))
					}
				}
			case errors.As(err, &bad):
			default:
				return
			}
		}
		t.Fatal("no end")
	})
}

// OAUTHBEARER (RFC 7628) and XOAUTH2: accepted, refused with the reason, malformed.
func TestBearer(t *testing.T) {
	r := newRig(t, nil)
	r.run(greeting + secure + `C1: AUTHENTICATE "OAUTHBEARER" "biwsAWhvc3Q9eAFwb3J0PTE0MwFhdXRoPUJlYXJlciB3cm9uZwEB"
S1: "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NoZW1lcyI6ImJlYXJlciIsInNjb3BlIjoibWFpbCJ9"
C1: "AQ=="
S1: NO "User name or password is wrong"
C1: AUTHENTICATE "XOAUTH2" "dXNlcj1hbGljZQ=="
S1: NO "Malformed response"
C1: AUTHENTICATE "OAUTHBEARER"
S1: ""
C1: "biwsAWhvc3Q9eAFwb3J0PTE0MwFhdXRoPUJlYXJlciB0b2tlbi1vZi1hbGljZQEB"
S1: OK "Logged in"
`)
	r.run(greeting + secure + `C1: AUTHENTICATE "XOAUTH2" "dXNlcj1hbGljZUBleGFtcGxlLnRlc3QBYXV0aD1CZWFyZXIgdG9rZW4tb2YtYWxpY2UBAQ=="
S1: OK "Logged in"
`)
}
