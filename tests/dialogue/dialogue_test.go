package dialogue

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// echo is a server that greets, sends each line back, and knows QUIT, STARTTLS, SILENCE and SEND
// (send the rest as it is, escapes resolved).
func echo(c net.Conn, config *tls.Config) {
	defer func() { c.Close() }()
	say := func(s string) { c.Write([]byte(s)) }
	say("* OK mail.example.test ready\r\n")
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if line == "" {
				say("gone\r\n")
			}
			return
		}
		text := strings.TrimRight(line, "\r\n")
		switch {
		case text == "QUIT":
			say("bye\r\n")
			return
		case text == "SILENCE":
		case text == "STARTTLS":
			say("go\r\n")
			secure := tls.Server(c, config)
			c, r = secure, bufio.NewReader(secure)
		case strings.HasPrefix(text, "SEND "):
			say(unescape(text[5:]))
		default:
			say(line)
		}
	}
}

// targets gives the echo server over a pipe and over loopback TCP.
func targets(t *testing.T) map[string]Dial {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go echo(c, config)
		}
	}()
	return map[string]Dial{
		"echo": func() (net.Conn, error) {
			client, server := net.Pipe()
			go echo(server, config)
			return client, nil
		},
		"tcp": func() (net.Conn, error) { return net.Dial("tcp", listener.Addr().String()) },
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestScripts(t *testing.T) {
	RunFiles(t, "testdata/*.txt", targets(t))
}

func TestWhatHolds(t *testing.T) {
	for name, script := range map[string]string{
		"escapes":        "open 1 echo\nS1~: * OK{{.*}}\nC1!: a\\x00\\tb \\Seen \\\\ \\r\\n\nS1: {{a\\x00\\tb \\\\Seen \\\\ }}\n",
		"capture":        "open 1 echo\nS1: {{.*}}\nC1: n 42\nS1: n {{n=[0-9]+}}\nC1: ${n}0 ${#n}\nS1: 420 2\n",
		"braces":         "open 1 echo\nS1: {{.*}}\nC1: 123}\nS1: {{[0-9]{3}}}}\n",
		"given variable": "open 1 echo\nS1: {{.*}}\nC1: ${user}\nS1: alice\n",
		"set":            "open 1 echo\nS1: {{.*}}\nset m a\\r\\nb\nC1: ${m} {${#m}}\nS1: a\nS1: b {4}\n",
		"unordered":      "open 1 echo\nS1: {{.*}}\nC1!: a\\r\\nb\\r\\nc\\r\\n\nS1*: c\nS1*: a\nS1*: b\n",
		"skip":           "open 1 echo\nS1: {{.*}}\nC1!: a\\r\\nb\\r\\nc\\r\\n\nS1~: c\n",
		"not forbidden":  "open 1 echo\nS1: {{.*}}\nC1!: a\\r\\nb\\r\\nc\\r\\n\nS1!: d\nS1: c\n",
		"hex":            "open 1 echo\nS1#: 2a 20 4f ?? 20\nS1: mail{{.*}}\nC1#: 610d0a\nS1#: 61 0d0a\n",
		"repeat":         "open 1 echo\nS1: {{.*}}\nrepeat 3\nrepeat 2\nC1: n${i}\nS1: n{{[12]}}\nend\nC1: o${i}\nS1: o{{[123]}}\nend\nC1: x\nS1: x\n",
		"two":            "open 1 echo\nopen 2 tcp\nS1: {{.*}}\nS2: {{.*}}\nC1: a\nC2: b\nS2: b\nS1: a\nclose 1\nopen 1 echo\nS1: {{.*}}\n",
		"half closed":    "open 1 tcp\nS1: {{.*}}\nhalfclose 1\nS1: gone\neof 1\n",
		"tls":            "open 1 tcp\nS1: {{.*}}\nC1: STARTTLS\nS1: go\nstarttls 1\nC1: in secret\nS1: in secret\nC1: QUIT\nS1: bye\neof 1\n",
		"late reader":    "open 1 tcp\nS1: {{.*}}\nrepeat 2000\nC1: ${0123456789*100}\nend\nrepeat 2000\nS1: ${0123456789*100}\nend\n",
	} {
		t.Run(name, func(t *testing.T) {
			Run(t, script, targets(t), Vars(map[string]string{"user": "alice"}))
		})
	}
}

func TestWhatFails(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		line   int
		words  string
	}{
		"another line":      {"open 1 echo\nS1: * OK{{.*}}\nC1: a\nS1: b\n", 4, "expected b\ngot      a"},
		"part of a line":    {"open 1 echo\nS1: * OK\n", 2, "mail.example.test"},
		"order":             {"open 1 echo\nS1: {{.*}}\nC1!: b\\r\\na\\r\\n\nS1: a\n", 4, "got      b"},
		"not in the group":  {"open 1 echo\nS1: {{.*}}\nC1!: a\\r\\nx\\r\\n\nS1*: b\nS1*: a\n", 4, "got      x"},
		"forbidden":         {"open 1 echo\nS1: {{.*}}\nC1!: a\\r\\nb\\r\\nc\\r\\n\nS1!: b\nS1: c\n", 4, "forbidden here: b"},
		"forbidden, wanted": {"open 1 echo\nS1: {{.*}}\nC1: c\nS1!: {{c.*}}\nS1: c\n", 4, "forbidden here: c"},
		"bare LF":           {"open 1 echo\nS1: {{.*}}\nC1!: a\\n\nS1: a\n", 4, `got      a\n`},
		"silence":           {"timeout 30ms\nopen 1 echo\nS1: {{.*}}\nC1: SILENCE\nS1: a\n", 5, "nothing came within 30ms"},
		"closed":            {"open 1 echo\nS1: {{.*}}\nC1: QUIT\nS1: bye\nS1: a\n", 5, "closed the connection"},
		"no end":            {"open 1 echo\nS1: {{.*}}\nC1: a\neof 1\n", 4, "the server sent \"a"},
		"half a line":       {"open 1 tcp\nS1: {{.*}}\nC1: SEND abc\nhalfclose 1\nS1: abc\n", 5, "abc"},
		"bytes":             {"open 1 echo\nS1#: 2a 20 4e\n", 2, "byte 2"},
		"no such target":    {"open 1 pop\n", 1, `no target "pop"`},
		"not open":          {"C1: a\n", 1, "connection 1 is not open"},
		"opened twice":      {"open 1 echo\nopen 1 echo\n", 2, "open already"},
		"no variable":       {"open 1 echo\nC1: ${nobody}\n", 2, "no variable"},
		"no such step":      {"opne 1 echo\n", 1, "is no step"},
		"in a repeat":       {"open 1 echo\nS1: {{.*}}\nrepeat 2\nC1: ${i}\nS1: 1\nend\n", 5, "got      2"},
		"no end of repeat":  {"\nrepeat 2\n", 2, "repeat without end"},
		"end alone":         {"end\n", 1, "end without repeat"},
		"bad pattern":       {"open 1 echo\nS1: {{(}}\n", 2, "pattern"},
		"bad hex":           {"open 1 echo\nC1#: 3\n", 2, "hexadecimal"},
		"wildcard sent":     {"open 1 echo\nC1#: ??\n", 2, "hexadecimal"},
		"tls without":       {"timeout 100ms\nopen 1 tcp\nstarttls 1\n", 3, "TLS handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Play(c.script, targets(t))
			var failure *Error
			if !errors.As(err, &failure) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if failure.Line != c.line || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got line %d: %v\nwant line %d, with %q", failure.Line, err, c.line, c.words)
			}
		})
	}
}

func TestLongLineIsBounded(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	go server.Write(bytes.Repeat([]byte("a"), maxLine+5000))
	err := Play("open 1 flood\nS1: {{.*}}\n", map[string]Dial{
		"flood": func() (net.Conn, error) { return client, nil },
	})
	if err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v, want a complaint about the line's length", err)
	}
}

// FuzzParse shows that no script text makes the parser or the pattern compiler panic.
func FuzzParse(f *testing.F) {
	f.Add("open 1 echo\nS1: * OK {{host=[a-z.]+}}\nC1!: \\x0")
	f.Add("repeat 2\nS1*: ${a*3}\nS1#: 30 ??\nend\n")
	f.Add("S1: {{a{2}}}\nC1: \\\nset x ${")
	f.Fuzz(func(t *testing.T, script string) {
		steps, err := parse(script)
		if err != nil {
			return
		}
		for _, s := range steps {
			if strings.Contains(s.text, "*") {
				continue // repetitions may be large on purpose
			}
			vars := map[string]string{"name": "x"}
			_, _ = compile(s.text, vars)
			_, _ = expand(unescape(s.text), vars, verbatim)
			_, _, _ = parseHex(s.text, true)
		}
	})
}
