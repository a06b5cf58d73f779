package enrol

import (
	"strings"
	"testing"
	"time"
)

func TestTokenForms(t *testing.T) {
	at := time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)
	clear, token, err := NewToken("box", []string{"box1.example.test", "2001:db8::1"}, at)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckClear(clear); err != nil {
		t.Error(err)
	}
	back, err := ParseToken(token.String())
	if err != nil || back.String() != token.String() {
		t.Errorf("%q is read as %q: %v", token, back, err)
	}
	if s, _, err := find([]string{"rubbish", token.String()}, clear, "box", at.Add(-time.Second)); err != nil || s != token.String() {
		t.Errorf("before its expiry: %q %v", s, err)
	}
	for what, f := range map[string]func() error{
		"expired": func() error { _, _, err := find([]string{token.String()}, clear, "box", at); return err },
		"another role": func() error {
			_, _, err := find([]string{token.String()}, clear, "vault", at.Add(-time.Hour))
			return err
		},
		"another token": func() error {
			_, _, err := find([]string{token.String()}, clear[:len(clear)-1]+"a", "box", at.Add(-time.Hour))
			return err
		},
		"its hash": func() error {
			_, _, err := find([]string{token.String()}, token.Hash, "box", at.Add(-time.Hour))
			return err
		},
	} {
		if err := f(); err != nil != (what != "another token" || clear[len(clear)-1] != 'a') {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []string{"", "2 " + token.String()[2:], token.String() + " x", strings.ToUpper(token.String()), "1 00 2026-11-23T18:00:00Z box",
		"1 " + token.Hash + " 2026-11-23T18:00:00+01:00 box", "1 " + token.Hash + " 2026-11-23T18:00:00Z ../box", "1 " + token.Hash + " 2026-11-23T18:00:00Z box a,,b"} {
		if _, err := ParseToken(bad); err == nil {
			t.Errorf("accepted: %q", bad)
		}
	}
}

func TestFingerprintForms(t *testing.T) {
	want := strings.Repeat("0a", 32)
	for _, form := range []string{want, strings.ToUpper(want), " " + strings.TrimSuffix(strings.Repeat("0a:", 32), ":") + "\n"} {
		if got, err := cleanFingerprint(form); err != nil || got != want {
			t.Errorf("%q: %q %v", form, got, err)
		}
	}
	if _, err := cleanFingerprint(want[2:]); err == nil {
		t.Error("62 digits were taken")
	}
}

// A request gives a public key of a kind that is strong enough, or an error.
func TestRequests(t *testing.T) {
	_, csr, err := newKey("box1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseCSR(string(csr)); err != nil {
		t.Error(err)
	}
	broken := []byte(string(csr))
	for i := len(broken) / 2; i < len(broken); i++ { // within the signature, or what it signs
		if broken[i] == 'A' {
			broken[i] = 'B'
			break
		}
	}
	for what, text := range map[string]string{"two": string(csr) + string(csr), "changed": string(broken), "none": "hello"} {
		if _, err := parseCSR(text); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("1 " + strings.Repeat("0a", 32) + " 2026-11-23T18:00:00Z box")
	f.Add("1 " + strings.Repeat("0a", 32) + " 2026-11-23T18:00:00Z vault vault1.example.test,2001:db8::1")
	f.Add("2 x y z")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		if back, err := ParseToken(token.String()); err != nil || back.String() != token.String() {
			t.Errorf("%q is written %q: %v", s, token.String(), err)
		}
	})
}

func FuzzParseCSR(f *testing.F) {
	_, csr, err := newKey("box1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(csr))
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
	f.Fuzz(func(t *testing.T, s string) {
		if key, err := parseCSR(s); (key == nil) != (err != nil) {
			t.Errorf("key %v, error %v", key, err)
		}
	})
}
