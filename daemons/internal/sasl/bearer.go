package sasl

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"shoal/daemons/internal/authn"
)

// bearerMechanisms are those by which the client shows a token. They are offered where tokens are accepted.
func bearerMechanisms(auth Authenticator) []Mechanism {
	offered := func(*Conn) bool {
		t, ok := auth.(interface{ TokensAccepted() bool })
		return !ok || t.TokensAccepted()
	}
	return []Mechanism{
		{Name: "OAUTHBEARER", Clear: true, Offered: offered, Begin: func(c *Conn) Exchange {
			return &bearer{auth: auth, conn: c, name: "OAUTHBEARER", parse: parseOAuthBearer}
		}},
		{Name: "XOAUTH2", Clear: true, Offered: offered, Begin: func(c *Conn) Exchange {
			return &bearer{auth: auth, conn: c, name: "XOAUTH2", parse: parseXOAuth2}
		}},
	}
}

// bearer is OAUTHBEARER (RFC 7628) and its predecessor XOAUTH2. They differ in the first message only. A token that is refused is
// answered by a challenge that says why, in JSON; the client acknowledges it, and then the login fails (RFC 7628 §3.2.3).
type bearer struct {
	auth   Authenticator
	conn   *Conn
	name   string
	parse  func([]byte) (user, token string, err error)
	failed error
}

func (b *bearer) Next(ctx context.Context, response []byte) (Step, error) {
	if b.failed != nil {
		return Step{}, b.failed // whatever the client acknowledged with
	}
	user, token, err := b.parse(response)
	if err != nil {
		return Step{}, err
	}
	var g *authn.Grant
	if err = authn.ErrBadCredentials; token != "" {
		g, err = b.auth.Bearer(ctx, b.conn.From(b.name), user, token)
	}
	if err == nil {
		return Step{Grant: g}, nil
	}
	b.failed = err
	return Step{Challenge: []byte(refusal(err))}, nil
}

// refusal is the JSON of RFC 7628 §3.2.2. XOAUTH2 clients look for status only, which is a code of HTTP there.
func refusal(err error) string {
	if errors.Is(err, authn.ErrUnavailable) {
		return `{"status":"503","schemes":"bearer","scope":"mail"}`
	}
	return `{"status":"invalid_token","schemes":"bearer","scope":"mail"}`
}

// parseOAuthBearer reads the client's message (RFC 7628 §3.1, with the header of RFC 5801 §4):
//
//	gs2-header  = gs2-cb-flag "," [ "a=" saslname ] ","      cb-flag: "n" or "y"; "p=..." is not for us
//	kvsep       = %x01
//	kvpair      = key "=" value kvsep
//	client-resp = gs2-header kvsep *kvpair kvsep
//
// The token is the pair "auth": "Bearer" SP token.
func parseOAuthBearer(message []byte) (user, token string, err error) {
	flag, rest, ok := bytes.Cut(message, []byte(","))
	if !ok || len(flag) != 1 || flag[0] != 'n' && flag[0] != 'y' {
		return "", "", ErrMalformed
	}
	authzid, rest, ok := bytes.Cut(rest, []byte(","))
	if !ok {
		return "", "", ErrMalformed
	}
	if len(authzid) > 0 {
		name, ok := strings.CutPrefix(string(authzid), "a=")
		if !ok {
			return "", "", ErrMalformed
		}
		if user, ok = saslName(name); !ok {
			return "", "", ErrMalformed
		}
	}
	rest, ok = bytes.CutPrefix(rest, []byte{1})
	if !ok {
		return "", "", ErrMalformed
	}
	token, err = bearerPairs(rest, nil)
	return user, token, err
}

// parseXOAuth2 reads the client's message of XOAUTH2:
//
//	"user=" address kvsep "auth=Bearer " token kvsep kvsep
func parseXOAuth2(message []byte) (user, token string, err error) {
	token, err = bearerPairs(message, func(key, value string) {
		if key == "user" {
			user = value
		}
	})
	return user, token, err
}

// bearerPairs reads *(key "=" value %x01) %x01 and returns the token, empty where there is none: a client that only asks what
// would be needed (RFC 7628 §4.3). Other pairs are passed over (§3.1).
func bearerPairs(rest []byte, each func(key, value string)) (token string, err error) {
	for !bytes.Equal(rest, []byte{1}) {
		pair, more, ok := bytes.Cut(rest, []byte{1})
		key, value, eq := strings.Cut(string(pair), "=")
		if !ok || !eq || key == "" || strings.ContainsFunc(key, func(r rune) bool { return !(r|0x20 >= 'a' && r|0x20 <= 'z') }) {
			return "", ErrMalformed
		}
		rest = more
		if key == "auth" {
			scheme, credentials, _ := strings.Cut(value, " ")
			if token != "" || !strings.EqualFold(scheme, "bearer") || !isToken(credentials) {
				return "", ErrMalformed
			}
			token = credentials
		} else if each != nil {
			each(key, value)
		}
	}
	return token, nil
}

// isToken: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=" (RFC 6750 §2.1).
func isToken(s string) bool {
	body := strings.TrimRight(s, "=")
	for i := 0; i < len(body); i++ {
		c := body[i]
		if !(c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-._~+/", c) >= 0) {
			return false
		}
	}
	return body != ""
}

// saslName decodes "=2C" and "=3D" (RFC 5801 §4).
func saslName(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == 0 || s[i] == ',':
			return "", false
		case s[i] != '=':
			b.WriteByte(s[i])
		case strings.HasPrefix(s[i:], "=2C"):
			b.WriteByte(',')
			i += 2
		case strings.HasPrefix(s[i:], "=3D"):
			b.WriteByte('=')
			i += 2
		default:
			return "", false
		}
	}
	return b.String(), b.Len() > 0
}
