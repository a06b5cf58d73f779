package sasl

import (
	"bytes"
	"testing"
)

// What is read of a bearer message is a token by its grammar, in both forms, and nothing makes the parsers fail.
func FuzzBearer(f *testing.F) {
	for _, s := range []string{"n,,\x01auth=Bearer abc.def==\x01\x01", "n,a=al=2Cice@example.test,\x01host=x\x01port=143\x01auth=bearer x\x01\x01",
		"user=a@b\x01auth=Bearer x\x01\x01", "n,,\x01\x01", "p=tls-exporter,,\x01auth=Bearer x\x01\x01", "", "\x01", "n,,\x01auth=Basic x\x01\x01", "n,a=x=41,\x01\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, parse := range []func([]byte) (string, string, error){parseOAuthBearer, parseXOAuth2} {
			user, token, err := parse(message)
			if err != nil {
				continue
			}
			if token != "" && !isToken(token) || bytes.IndexByte([]byte(token), 1) >= 0 || bytes.IndexByte([]byte(user), 1) >= 0 {
				t.Errorf("%q: user %q, token %q", message, user, token)
			}
		}
	})
}

func TestParseOAuthBearer(t *testing.T) {
	user, token, err := parseOAuthBearer([]byte("n,a=al=2Cice@example.test,\x01host=x\x01auth=Bearer abc.def==\x01\x01"))
	if user != "al,ice@example.test" || token != "abc.def==" || err != nil {
		t.Errorf("%q, %q, %v", user, token, err)
	}
}
