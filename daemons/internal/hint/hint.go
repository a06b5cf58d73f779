// Package hint carries hints between boxes: "somebody committed to this mailbox". A box that commits to a mailbox
// finds in it which other boxes have a session on it, and sends each of them a hint; they read the log and
// tell their clients. A hint is only a hint: losing one costs the delay until the next slow re-check, and
// a false one costs a look at a mailbox. Neither can damage anything, so nothing here is acknowledged or kept.
//
// # Wire format, version 1
//
// TLS with certificates on both sides, of role box or switch; then lines of text, at most 256 bytes each with their LF:
//
//	greeting = "shoal-hint " major "." minor LF        ; both sides, the server first
//	hint     = "m " volume " " account " " mailbox LF   ; client to server; mailbox "-": the account's list
//	failed   = "f " user " " address LF                 ; since 1.1: a login failed. Both are keys (package authn), or "-"
//	known    = "k " user " " address LF                 ; since 1.1: a user whom somebody guesses at logged in from there
//	error    = "e " text LF                             ; server, before it closes
//	token    = 1*64( "a"-"z" / "0"-"9" / "-" / "." / "_" )   ; volume, account, mailbox
//
// A greeting with another major version ends the connection. A line that begins with a lower-case letter which the
// reader does not know is skipped (a newer minor version); everything else that is not as above ends it.
// Boxes take all of it; switches, which have no mailboxes, take the last two and send them. They are sent to every server that the
// directory lists with an address for hints. Like the others, a report that is lost does no harm: somebody may guess a little faster.
// The client keeps the connection open while it has hints to send now and then.
//
// # Trust
//
// A server takes hints from boxes only (by certificate), reports of logins from switches, too, and only so many per second. A sender connects only to addresses
// that the directory lists as service "hint" of a box, and only talks to a peer whose certificate names that very
// box: an entry forged into a mailbox's interest folder makes nobody send anything anywhere.
//
// Left out on purpose: acknowledgements, ordering, retries beyond one new connection.
package hint

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"shoal/daemons/internal/mailstore"
)

// The version of the protocol that this package speaks.
const (
	major = 1
	minor = 1
)

const (
	maxLine  = 256
	maxToken = 64
)

// Settings are the attributes of the block hints of boxd's configuration, with their defaults.
type Settings struct {
	// Address is where the other boxes reach the hint listener of this one, as the directory lists it;
	// empty: the listener's own address.
	Address string `hcl:"address,optional" conf:"dial"`
	// Queue bounds the mailboxes that wait to be told about, per peer; further hints are dropped.
	Queue int `hcl:"queue,optional" default:"4096" min:"1" max:"1000000"`
	// Rate is how many hints a second are sent to one peer, and taken from one, on average.
	Rate int `hcl:"rate,optional" default:"5000" min:"1" max:"1000000"`
	// IdleTimeout closes a connection that carried nothing.
	IdleTimeout time.Duration `hcl:"idle_timeout,optional" default:"5m" min:"1s" max:"24h"`
	// ConnectTimeout bounds connecting to a peer with its TLS handshake, WriteTimeout sending to one
	// that does not read.
	ConnectTimeout time.Duration `hcl:"connect_timeout,optional" default:"3s" min:"10ms" max:"1m"`
	WriteTimeout   time.Duration `hcl:"write_timeout,optional" default:"3s" min:"10ms" max:"1m"`
}

// errProtocol says that the peer does not speak this protocol. Its text may go back to the peer.
type errProtocol string

func (e errProtocol) Error() string { return string(e) }

var errNewer = errors.New("the peer speaks a newer major version of the protocol")

// appendGreeting appends the greeting line.
func appendGreeting(b []byte) []byte {
	return fmt.Appendf(b, "shoal-hint %d.%d\n", major, minor)
}

// parseGreeting checks a greeting line, given without its LF.
func parseGreeting(line []byte) error {
	rest, ok := bytes.CutPrefix(line, []byte("shoal-hint "))
	if !ok {
		return errProtocol("no greeting")
	}
	majorText, minorText, ok := bytes.Cut(rest, []byte("."))
	m, err := strconv.ParseUint(string(majorText), 10, 16)
	if _, merr := strconv.ParseUint(string(minorText), 10, 16); !ok || err != nil || merr != nil {
		return errProtocol("bad version in greeting")
	}
	if m != major {
		return fmt.Errorf("%w: %d, this is %d", errNewer, m, major)
	}
	return nil
}

// appendHint appends the line for ref, or returns false when ref cannot be written.
func appendHint(b []byte, ref mailstore.Ref) ([]byte, bool) {
	mailbox := ref.Mailbox
	if mailbox == "" {
		mailbox = "-"
	} else if mailbox == "-" {
		return b, false
	}
	if !isToken(ref.Volume) || !isToken(ref.Account) || !isToken(mailbox) {
		return b, false
	}
	b = append(b, "m "...)
	b = append(b, ref.Volume...)
	b = append(b, ' ')
	b = append(b, ref.Account...)
	b = append(b, ' ')
	b = append(b, mailbox...)
	return append(b, '\n'), true
}

// item is what is to be sent to a peer: a hint, or a report of a login.
type item struct {
	ref  mailstore.Ref
	kind byte // 'f' or 'k'; 0: a hint
	user string
	addr string
}

// appendItem appends the line for it, or returns false when it cannot be written.
func appendItem(b []byte, it item) ([]byte, bool) {
	if it.kind == 0 {
		return appendHint(b, it.ref)
	}
	if !isToken(it.user) || !isToken(it.addr) {
		return b, false
	}
	return fmt.Appendf(b, "%c %s %s\n", it.kind, it.user, it.addr), true
}

// parseReport reads a report of a login, given without its LF; ok is false for another line.
func parseReport(line []byte) (it item, ok bool, err error) {
	if len(line) < 2 || line[0] != 'f' && line[0] != 'k' || line[1] != ' ' {
		return it, false, nil
	}
	fields := bytes.Split(line, []byte(" "))
	if len(fields) != 3 || !isToken(fields[1]) || !isToken(fields[2]) {
		return it, true, errProtocol("bad report")
	}
	return item{kind: line[0], user: string(fields[1]), addr: string(fields[2])}, true, nil
}

// parseLine reads one line after the greeting, given without its LF. known is false for a line that a newer
// minor version may send.
func parseLine(line []byte) (ref mailstore.Ref, known bool, err error) {
	if len(line) < 1 || line[0] < 'a' || line[0] > 'z' || len(line) > 1 && line[1] != ' ' {
		return ref, false, errProtocol("bad line")
	}
	if line[0] != 'm' {
		return ref, false, nil
	}
	fields := bytes.Split(line, []byte(" "))
	if len(fields) != 4 {
		return ref, false, errProtocol("bad hint")
	}
	for _, f := range fields[1:] {
		if !isToken(f) {
			return ref, false, errProtocol("bad hint")
		}
	}
	ref = mailstore.Ref{Volume: string(fields[1]), Account: string(fields[2]), Mailbox: string(fields[3])}
	if ref.Mailbox == "-" {
		ref.Mailbox = ""
	}
	return ref, true, nil
}

func isToken[T string | []byte](s T) bool {
	if len(s) == 0 || len(s) > maxToken {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}

// bucket is a token bucket: rate a second on average, twice that at once.
type bucket struct {
	rate  float64
	level float64
	at    time.Duration
}

func newBucket(rate int, now time.Duration) bucket {
	return bucket{rate: float64(rate), level: 2 * float64(rate), at: now}
}

// take takes up to n and returns how many it got.
func (b *bucket) take(n int, now time.Duration) int {
	b.level = min(2*b.rate, b.level+b.rate*(now-b.at).Seconds())
	b.at = now
	got := min(n, int(b.level))
	b.level -= float64(got)
	return got
}
