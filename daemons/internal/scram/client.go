package scram

import (
	"crypto/hmac"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
)

// Client is the client's side of one exchange.
type Client struct {
	hash           *Hash
	header, data   string
	bare, nonce    string
	password, auth string
	salted         []byte
	step           int
}

// NewClient begins an exchange as a user, who may act as authzid ("" for himself). With a mechanism of -PLUS the
// exchange is bound by the named binding.
func NewClient(mechanism, user, password, authzid string, binding Binding, bindBy string) (*Client, error) {
	h, plus := ByName(mechanism)
	if h == nil {
		return nil, fmt.Errorf("mechanism %.32q is not known", mechanism)
	}
	if p, err := Prepare(user); err == nil {
		user = p
	}
	c := &Client{hash: h, nonce: newNonce(), password: password, header: "n,"}
	if plus {
		data, ok := binding[bindBy]
		if !ok {
			return nil, fmt.Errorf("%w: the connection has no %s", ErrChannelBinding, bindBy)
		}
		c.header, c.data = "p="+bindBy+",", string(data)
	}
	if authzid != "" {
		c.header += "a=" + escape(authzid)
	}
	c.header += ","
	c.bare = "n=" + escape(user)
	return c, nil
}

// First is the client's first message.
func (c *Client) First() []byte {
	c.bare += ",r=" + c.nonce
	c.step = 1
	return []byte(c.header + c.bare)
}

// Next takes a message of the server and gives the answer; with done the server has proved itself and there is
// nothing more to say. Errors: ErrMalformed, ErrProof, and what the server says.
func (c *Client) Next(msg []byte) (answer []byte, done bool, err error) {
	c.step++
	switch c.step {
	case 2:
		answer, err = c.finish(msg)
		return answer, false, err
	case 3:
		return nil, true, c.verify(msg)
	}
	return nil, false, ErrMalformed
}

func (c *Client) finish(msg []byte) ([]byte, error) {
	s, err := parseServerFirst(msg)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(s.nonce, c.nonce) || len(s.nonce) == len(c.nonce) {
		return nil, fmt.Errorf("%w: the server changed the nonce", ErrMalformed)
	}
	without := "c=" + base64.StdEncoding.EncodeToString([]byte(c.header+c.data)) + ",r=" + s.nonce
	c.auth = c.bare + "," + string(msg) + "," + without
	c.salted = c.hash.salted(c.password, s.salt, s.iterations)
	proof := c.hash.hmac(c.salted, "Client Key")
	subtle.XORBytes(proof, proof, c.hash.hmac(c.hash.sum(proof), c.auth))
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

func (c *Client) verify(msg []byte) error {
	if why, ok := strings.CutPrefix(string(msg), "e="); ok {
		return fmt.Errorf("the server refuses: %.64q", why)
	}
	text, _, err := attribute(string(msg[:min(len(msg), maxMessage)]), 'v')
	if err != nil {
		return err
	}
	got, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return ErrMalformed
	}
	if !hmac.Equal(got, c.hash.hmac(c.hash.hmac(c.salted, "Server Key"), c.auth)) {
		return fmt.Errorf("%w: the server does not know the verifier", ErrProof)
	}
	return nil
}
