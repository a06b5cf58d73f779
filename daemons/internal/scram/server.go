package scram

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Server is the server's side of one exchange.
type Server struct {
	hash    *Hash
	plus    bool
	binding Binding
	lookup  func(name, authzid string) (Verifier, error)

	step     int
	first    clientFirst
	verifier Verifier
	nonce    string
	sent     string // server-first
	fixed    string // the server's part of the nonce, of tests
}

// NewServer begins an exchange. mechanism is its name. binding is that of the connection, empty without TLS or where
// the mechanisms with -PLUS are not offered. lookup gives the verifier of a user, once; its error ends the
// exchange and is returned by Next, so names without a verifier should get one of Fake.
func NewServer(mechanism string, binding Binding, lookup func(name, authzid string) (Verifier, error)) (*Server, error) {
	h, plus := ByName(mechanism)
	if h == nil {
		return nil, fmt.Errorf("mechanism %.32q is not known", mechanism)
	}
	if plus && len(binding) == 0 {
		return nil, fmt.Errorf("mechanism %s needs TLS: %w", mechanism, ErrChannelBinding)
	}
	return &Server{hash: h, plus: plus, binding: binding, lookup: lookup}, nil
}

// Next takes a message of the client and gives the answer. With done the client has proved that it knows the
// password, and the answer is the server's own proof, which must reach the client. Errors: ErrMalformed,
// ErrChannelBinding, ErrProof, and that of lookup; after one, the exchange is over.
func (s *Server) Next(msg []byte) (answer []byte, done bool, err error) {
	s.step++
	switch s.step {
	case 1:
		answer, err = s.begin(msg)
	case 2:
		answer, err = s.finish(msg)
		done = err == nil
	default:
		err = ErrMalformed
	}
	if err != nil {
		s.step = 3
		return nil, false, err
	}
	return answer, done, nil
}

// Name is the user's, once the first message was read; Authzid whom he wants to act as, "" for himself.
func (s *Server) Name() string    { return s.first.name }
func (s *Server) Authzid() string { return s.first.authzid }

func (s *Server) begin(msg []byte) ([]byte, error) {
	c, err := parseClientFirst(msg)
	if err != nil {
		return nil, err
	}
	s.first = c
	switch {
	case c.flag == 'p' && !s.plus || c.flag != 'p' && s.plus:
		return nil, fmt.Errorf("%w: the mechanism and the client's flag differ", ErrChannelBinding)
	case c.flag == 'p' && s.binding[c.binding] == nil:
		return nil, fmt.Errorf("%w: %.32q is not on offer", ErrChannelBinding, c.binding)
	case c.flag == 'y' && len(s.binding) > 0:
		return nil, fmt.Errorf("%w: the client did not see that this server offers them", ErrChannelBinding)
	}
	if s.verifier, err = s.lookup(c.name, c.authzid); err != nil {
		return nil, err
	}
	if s.verifier.Hash != s.hash {
		return nil, errors.New("scram: the verifier is one of another mechanism")
	}
	if s.fixed == "" {
		s.fixed = newNonce()
	}
	s.nonce = c.nonce + s.fixed
	s.sent = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString(s.verifier.Salt), s.verifier.Iterations)
	return []byte(s.sent), nil
}

func (s *Server) finish(msg []byte) ([]byte, error) {
	c, err := parseClientFinal(msg)
	if err != nil {
		return nil, err
	}
	if len(c.proof) != s.hash.size || subtle.ConstantTimeCompare([]byte(c.nonce), []byte(s.nonce)) != 1 {
		return nil, ErrMalformed
	}
	want := s.first.header
	if s.first.flag == 'p' {
		want += string(s.binding[s.first.binding])
	}
	bound := subtle.ConstantTimeCompare(c.binding, []byte(want)) == 1
	// RFC 5802 §3: ClientKey = ClientProof XOR ClientSignature; its hash is StoredKey.
	auth := []string{s.first.bare, ",", s.sent, ",", c.without}
	key := s.hash.hmac(s.verifier.StoredKey, auth...)
	subtle.XORBytes(key, key, c.proof)
	if subtle.ConstantTimeCompare(s.hash.sum(key), s.verifier.StoredKey) != 1 {
		return nil, ErrProof
	}
	if !bound {
		return nil, ErrChannelBinding
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(s.hash.hmac(s.verifier.ServerKey, auth...))), nil
}

// Mechanisms names the mechanisms of hash functions in the order in which clients should prefer them: with channel
// binding first, where there is one.
func Mechanisms(binding bool, hashes ...*Hash) []string {
	var names []string
	for _, suffix := range []string{Plus, ""} {
		for _, h := range hashes {
			if suffix == "" || binding {
				names = append(names, h.Name+suffix)
			}
		}
	}
	return names
}

// IsMechanism reports whether a name is that of a SCRAM mechanism known here.
func IsMechanism(name string) bool {
	h, _ := ByName(strings.ToUpper(name))
	return h != nil
}
