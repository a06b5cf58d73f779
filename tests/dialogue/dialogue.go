// Package dialogue plays scripts of wire dialogue against a server: what the client says, what the
// server must answer, what it must not say. One script runs both in process (a net.Pipe or loopback
// connection into a session) and against a deployed service.
//
// A script is text, one step a line; blank lines and lines that begin with `#` are skipped.
// <id> names a connection (digits or lower-case letters).
//
//	open <id> <target>     connect; the targets are given to Run
//	close <id>             close both directions
//	halfclose <id>         close our sending direction, go on reading
//	starttls <id>          TLS handshake as client, on the same connection
//	eof <id>               the server must close now, without another byte
//	timeout <duration>     bound for each following expectation (default 10s)
//	set <name> <text>      a variable; escapes as in C
//	repeat <n> ... end     play the steps in between n times; ${i} counts from 1; may be nested
//
//	C1: <text>             send text and CRLF
//	C1!: <text>            send text alone
//	C1#: 30 0c 02          send these bytes, in hexadecimal
//	S1: <pattern>          the next line must match
//	S1*: <pattern>         lines marked so, one below the other, must match the next lines in any order
//	S1~: <pattern>         skip lines until one matches
//	S1!: <pattern>         forbidden: the next expectation on this connection may skip lines,
//	                       but none that matches this
//	S1#: 30 ?? 02          the next bytes, in hexadecimal; ?? is any byte
//
// Text. `\r`, `\n`, `\t`, `\\` and `\x00` are escapes; any other backslash stands for itself, so that
// `\Seen` needs no care. `${name}` is a variable or a capture, `${#name}` its length in bytes,
// `${A*70000}` the letter (or text) A 70,000 times.
//
// Patterns. The text must equal the whole line, without its CRLF. `{{regexp}}` matches a part,
// `{{name=regexp}}` captures it, `${...}` is put in literally, also inside a regexp. There are no
// escapes outside of {{}}. A line that ends with a bare LF keeps that LF, so that it does not match by
// accident.
//
// Invariants: every expectation ends by its time-out; lines are bounded (1 MiB); sending never waits for
// the server to read, so a script cannot deadlock against a server that answers late.
package dialogue

import (
	"crypto/tls"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Dial opens one connection to a target.
type Dial = func() (net.Conn, error)

// Option changes how a script is played.
type Option func(*player)

// Vars gives variables to the script. A later option wins.
func Vars(vars map[string]string) Option {
	return func(p *player) { maps.Copy(p.vars, vars) }
}

// TLS sets the client configuration for starttls. Without it any certificate is accepted: what is
// tested is the dialogue.
func TLS(config *tls.Config) Option {
	return func(p *player) { p.tls = config }
}

// Timeout bounds each expectation until the script says otherwise. The default is 10 seconds.
func Timeout(d time.Duration) Option {
	return func(p *player) { p.timeout = d }
}

// Run plays the script and fails the test, with the line of the script and the end of the
// transcript, at the first step that does not go as written.
func Run(t testing.TB, script string, targets map[string]Dial, options ...Option) {
	t.Helper()
	if err := Play(script, targets, options...); err != nil {
		t.Fatal(err)
	}
}

// RunFiles plays each script that matches the glob pattern as a subtest named after its file. It fails
// when none matches.
func RunFiles(t *testing.T, pattern string, targets map[string]Dial, options ...Option) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatalf("scripts %q: %v", pattern, err)
	}
	if len(paths) == 0 {
		t.Fatalf("no script matches %q", pattern)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		t.Run(name, func(t *testing.T) {
			script, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			Run(t, string(script), targets, options...)
		})
	}
}

// Play plays the script and returns what went wrong first, as an *Error, or nil.
func Play(script string, targets map[string]Dial, options ...Option) error {
	steps, err := parse(script)
	if err != nil {
		return err
	}
	p := &player{
		targets: targets,
		vars:    map[string]string{},
		conns:   map[string]*conn{},
		timeout: 10 * time.Second,
		tls:     &tls.Config{InsecureSkipVerify: true},
	}
	for _, option := range options {
		option(p)
	}
	defer p.closeAll()
	return p.play(steps)
}
