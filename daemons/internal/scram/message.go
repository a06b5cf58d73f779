package scram

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Errors of an exchange, for errors.Is. The second and third tell a server why it failed; clients are told no more
// than that it did.
var (
	// ErrMalformed: a message that is none of SCRAM's.
	ErrMalformed = errors.New("malformed SCRAM message")
	// ErrChannelBinding: the client's channel binding is not that of this connection, or not on offer.
	ErrChannelBinding = errors.New("channel bindings do not match")
	// ErrProof: the client does not know the password, or the server does not know its verifier.
	ErrProof = errors.New("wrong password")
)

const (
	maxMessage  = 4096
	nonceLength = 24 // characters, of 6 random bits each
	maxNonce    = 512
)

func newNonce() string {
	b := make([]byte, nonceLength*3/4)
	_, _ = rand.Read(b) // never fails: it ends the process instead
	return base64.StdEncoding.EncodeToString(b)
}

// printable = %x21-2B / %x2D-7E: of a nonce.
func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == ',' {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}

// escape writes a saslname (RFC 5802 §7).
func escape(s string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s) }

func unescape(s string) (string, error) {
	if !strings.Contains(s, "=") {
		return s, nil
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "=")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(after, "3D"):
			b.WriteByte('=')
		case strings.HasPrefix(after, "2C"):
			b.WriteByte(',')
		default:
			return "", ErrMalformed
		}
		s = after[2:]
	}
}

// attribute takes "<name>=<value>" off a list of attributes.
func attribute(list string, name byte) (value, rest string, err error) {
	part, rest, _ := strings.Cut(list, ",")
	if len(part) < 2 || part[0] != name || part[1] != '=' {
		return "", "", ErrMalformed
	}
	return part[2:], rest, nil
}

// clientFirst is the parsed first message of a client.
type clientFirst struct {
	header  string // gs2-header with its last comma
	flag    byte   // n, y or p
	binding string // with p
	authzid string
	bare    string
	name    string
	nonce   string
}

func parseClientFirst(msg []byte) (c clientFirst, err error) {
	if len(msg) > maxMessage || !utf8.Valid(msg) {
		return c, ErrMalformed
	}
	flag, rest, ok1 := strings.Cut(string(msg), ",")
	authz, bare, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 {
		return c, ErrMalformed
	}
	switch {
	case flag == "n" || flag == "y":
		c.flag = flag[0]
	case strings.HasPrefix(flag, "p="):
		if c.flag, c.binding = 'p', flag[2:]; c.binding == "" {
			return c, ErrMalformed
		}
	default:
		return c, ErrMalformed
	}
	if authz != "" {
		value, ok := strings.CutPrefix(authz, "a=")
		if c.authzid, err = unescape(value); err != nil || !ok || c.authzid == "" {
			return c, ErrMalformed
		}
	}
	c.header, c.bare = flag+","+authz+",", bare
	name, rest, err := attribute(bare, 'n') // an "m=" here is a mandatory extension: none is known
	if err != nil {
		return c, err
	}
	if c.name, err = unescape(name); err != nil || c.name == "" {
		return c, ErrMalformed
	}
	if p, err := Prepare(c.name); err == nil {
		c.name = p
	}
	if c.nonce, _, err = attribute(rest, 'r'); err != nil || !printable(c.nonce) {
		return c, ErrMalformed
	}
	return c, nil
}

// serverFirst is the parsed first message of a server.
type serverFirst struct {
	nonce      string
	salt       []byte
	iterations int
}

func parseServerFirst(msg []byte) (s serverFirst, err error) {
	if len(msg) > maxMessage {
		return s, ErrMalformed
	}
	var salt, n, rest string
	if s.nonce, rest, err = attribute(string(msg), 'r'); err != nil || !printable(s.nonce) {
		return s, ErrMalformed
	}
	if salt, rest, err = attribute(rest, 's'); err != nil {
		return s, err
	}
	if n, _, err = attribute(rest, 'i'); err != nil {
		return s, err
	}
	if s.salt, err = base64.StdEncoding.Strict().DecodeString(salt); err != nil || len(s.salt) == 0 {
		return s, ErrMalformed
	}
	if s.iterations, err = strconv.Atoi(n); err != nil || s.iterations < MinIterations || s.iterations > MaxIterations {
		return s, ErrMalformed
	}
	return s, nil
}

// clientFinal is the parsed last message of a client.
type clientFinal struct {
	binding []byte // gs2-header and data
	nonce   string
	without string // the message without its proof
	proof   []byte
}

func parseClientFinal(msg []byte) (c clientFinal, err error) {
	if len(msg) > maxMessage || !utf8.Valid(msg) {
		return c, ErrMalformed
	}
	text := string(msg)
	i := strings.LastIndex(text, ",p=")
	if i < 0 {
		return c, ErrMalformed
	}
	c.without = text[:i]
	if c.proof, err = base64.StdEncoding.Strict().DecodeString(text[i+3:]); err != nil {
		return c, ErrMalformed
	}
	binding, rest, err := attribute(c.without, 'c')
	if err != nil {
		return c, err
	}
	if c.binding, err = base64.StdEncoding.Strict().DecodeString(binding); err != nil {
		return c, ErrMalformed
	}
	if c.nonce, _, err = attribute(rest, 'r'); err != nil {
		return c, err
	}
	return c, nil
}
