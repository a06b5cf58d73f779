package conf

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the expected messages anew")

// role has one attribute of every type and kind.
type role struct {
	Server     Server      `hcl:"server,block"`
	Identity   *Identity   `hcl:"identity,block"`
	Directory  *Directory  `hcl:"directory,block"`
	Listeners  []Listener  `hcl:"listener,block"`
	Volumes    []*Volume   `hcl:"volume,block"`
	PublicTLS  *PublicTLS  `hcl:"public_tls,block"`
	Management *Management `hcl:"management,block"`
	Control    *Control    `hcl:"control,block"`
	Log        Log         `hcl:"log,block"`
	Drain      Drain       `hcl:"drain,block"`
	Limits     limits      `hcl:"limits,block"`
	Rules      []rule      `hcl:"rule,block"`

	Greeting string   `hcl:"greeting,optional" default:"hello"`
	Words    []string `hcl:"words,optional" default:"one two"`
	Relay    string   `hcl:"relay,optional" conf:"dial"`
}

type limits struct {
	MessageSize Size              `hcl:"message_size,optional" conf:"live" default:"25 MB" min:"1 KB" max:"1 GB"`
	Recipients  uint16            `hcl:"recipients,optional" default:"100" min:"1" max:"1000"`
	Idle        time.Duration     `hcl:"idle,optional" default:"30m" min:"1s" max:"7d"`
	Ratio       float64           `hcl:"ratio,optional" default:"0.5" max:"1"`
	Headers     map[string]string `hcl:"headers,optional"`
}

type rule struct {
	Pattern string `hcl:"pattern"`
}

// Validate has rules of two attributes and of one in a block.
func (r *role) Validate() error {
	var all []error
	if r.Greeting == "rude" {
		all = append(all, Invalid("greeting", "must be polite"))
	}
	for _, l := range r.Listeners {
		if l.TLS && r.PublicTLS == nil {
			all = append(all, Invalid("listener."+l.Name+".tls", "needs a public_tls block"))
		}
	}
	return errors.Join(all...)
}

// fixtures makes the files that the configurations in testdata name.
func fixtures(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, f := range map[string]struct {
		text string
		mode fs.FileMode
	}{
		"good.secret": {"s3cret\n", 0o600}, "group.secret": {"s3cret", 0o640},
		"open.secret": {"s3cret\n", 0o644}, "shared.secret": {"s3cret\n", 0o660},
		"empty.secret": {"\n", 0o600}, "two.secret": {"a\nb\n", 0o600},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(f.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Each file in testdata/bad has one mistake, and beside it the whole message that it must give.
func TestBadConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 30 {
		t.Fatalf("only %d files in testdata/bad", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hcl"), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := fixtures(t)
			err = Decode(src, filepath.Join(dir, "boxd.hcl"), &role{})
			if err == nil {
				t.Fatal("accepted")
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T, not *Error: %v", err, err)
			}
			got := strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
			wantFile := strings.TrimSuffix(file, ".hcl") + ".want"
			if *update {
				if err := os.WriteFile(wantFile, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wantFile)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwanted\n%s", got, want)
			}
		})
	}
}

func TestFullConfiguration(t *testing.T) {
	src, err := os.ReadFile("testdata/good/full.hcl")
	if err != nil {
		t.Fatal(err)
	}
	dir := fixtures(t)
	var got role
	if err := Decode(src, filepath.Join(dir, "boxd.hcl"), &got); err != nil {
		t.Fatal(err)
	}
	var directory Directory
	SetDefaults(&directory)
	directory.URIs = []string{"ldap://127.0.0.1:389", "ldaps://vault.example.test"}
	directory.BindDN, directory.PasswordFile = "cn=box1,ou=servers,ou=config,o=shoal", dir+"/good.secret"
	directory.RequestTimeout = time.Second
	want := role{
		Server:    Server{Name: "box1", User: "shoal-box:shoal"},
		Identity:  &Identity{CertFile: dir + "/box1.crt", KeyFile: "/etc/shoal/box1.key", CAFile: dir + "/sub/ca.crt"},
		Directory: &directory,
		Listeners: []Listener{
			{Name: "imap", Address: "127.0.0.1:143", ProxyFrom: []string{"127.0.0.1", "10.0.0.0/8", "2001:db8::/32"}, MaxConnections: 5},
			{Name: "imaps", Address: "[::]:993", TLS: true, MaxConnections: 10000},
		},
		Volumes:   []*Volume{{Name: "vol01", Path: "/srv/shoal/vol01", ID: "abc"}},
		PublicTLS: &PublicTLS{CertFile: dir + "/p.crt", KeyFile: dir + "/p.key"},
		Log:       Log{Format: "auto", Level: "debug"},
		Drain:     Drain{Timeout: 90 * time.Second},
		Limits: limits{
			MessageSize: 50_000_000, Recipients: 100, Idle: 36 * time.Hour, Ratio: 0.25,
			Headers: map[string]string{"X-A": "b", "c": "d"},
		},
		Rules:    []rule{{Pattern: "a"}, {Pattern: "b"}},
		Greeting: "hello", Words: []string{"three"}, Relay: "mail.example.test:25",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwanted\n%+v", got, want)
	}
}

func TestDefaults(t *testing.T) {
	var got role
	if err := Decode([]byte(`server { name = "box1" }`), "boxd.hcl", &got); err != nil {
		t.Fatal(err)
	}
	want := role{
		Server: Server{Name: "box1"}, Log: Log{Format: "auto", Level: "info"}, Drain: Drain{Timeout: 30 * time.Second},
		Limits:   limits{MessageSize: 25_000_000, Recipients: 100, Idle: 30 * time.Minute, Ratio: 0.5},
		Greeting: "hello", Words: []string{"one", "two"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwanted\n%+v", got, want)
	}
	var l Listener
	SetDefaults(&l)
	if l.MaxConnections != 10000 {
		t.Errorf("SetDefaults: %+v", l)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if err := Load(filepath.Join(dir, "none.hcl"), &role{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := Load(dir, &role{}); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("folder: %v", err)
	}
	big := filepath.Join(dir, "big.hcl")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(big, &role{}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large file: %v", err)
	}
	good := filepath.Join(dir, "good.hcl")
	if err := os.WriteFile(good, []byte("server { name = \"x\" }\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var r role
	if err := Load(good, &r); err != nil || r.Server.Name != "x" {
		t.Errorf("good file: %v, %+v", err, r.Server)
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	src := "server { name = \"a\" }\n" + strings.Repeat("nonsense_attribute = 1\n", 1) + strings.Repeat("listener \"\" {}\n", 30)
	err := Decode([]byte(src), "x.hcl", &role{})
	if err == nil || !strings.Contains(err.Error(), "and 11 more problems") {
		t.Errorf("got %v", err)
	}
}

func TestReadSecret(t *testing.T) {
	dir := fixtures(t)
	for name, want := range map[string]string{"good.secret": "s3cret", "group.secret": "s3cret"} {
		got, err := ReadSecret(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"open.secret": "chmod 600", "shared.secret": "chmod 640", "empty.secret": "is empty", "two.secret": "more than one line",
		"folder.secret": "not a regular file", "none.secret": "file does not exist",
	} {
		_, err := ReadSecret(filepath.Join(dir, name))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, wanted %q", name, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error gives the secret away: %v", name, err)
		}
	}
	crlf := filepath.Join(dir, "crlf")
	if err := os.WriteFile(crlf, []byte(" pass word \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadSecret(crlf); err != nil || string(got) != " pass word " {
		t.Errorf("only the line end goes: %q, %v", got, err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, maxSecret+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(big); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("large: %v", err)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Size{
		"25 MB": 25_000_000, "25MB": 25_000_000, "1 KiB": 1024, "0 B": 0, "1.5 GiB": 3 << 29, "7 b": 7, " 2 TB ": 2e12, "3 kib": 3072,
	} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v, wanted %d", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"25": "has no unit", "": "not a size", "MB": "not a size", "-1 MB": "not a size", "1e3 MB": "not a size", "99999999 TB": "more than can be counted",
		"1.2.3 MB": "not a size", "9999999999.5 TB": "more than can be counted", "10 parsecs": "not a size",
	} {
		if got, err := ParseSize(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v, wanted %q", in, got, err, want)
		}
	}
	for in, want := range map[Size]string{25_000_000: "25 MB", 1024: "1 KiB", 1025: "1025 B", 0: "0 B", 3 << 30: "3 GiB", 2e12: "2 TB"} {
		if got := in.String(); got != want {
			t.Errorf("%d: %q, wanted %q", in, got, want)
		}
		if back, err := ParseSize(in.String()); err != nil || back != in {
			t.Errorf("%s does not come back: %d, %v", in, back, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "0s": 0, "1.5h": 90 * time.Minute, "0d": 0,
	} {
		got, err := ParseDuration(in)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v, wanted %v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"30": "has no unit", "": "not a duration", "-3s": "is negative", "d": "not a duration", "1dd": "not a duration",
		"999999999999d": "more than can be counted", "106751d999h": "more than can be counted",
	} {
		if got, err := ParseDuration(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, wanted %q", in, got, err, want)
		}
	}
}

func TestDiff(t *testing.T) {
	parse := func(src string) *role {
		t.Helper()
		var r role
		if err := Decode([]byte("server { name = \"a\" }\n"+src), "x.hcl", &r); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	base := `listener "imap" { address = "127.0.0.1:143" }` + "\n" + `listener "old" { address = "127.0.0.1:1" }`
	next := `listener "new" { address = "127.0.0.1:1" }` + "\n" + `listener "imap" { address = "127.0.0.1:144" }
log { level = "debug" }
management { address = "127.0.0.1:1" }`
	var got []string
	for _, c := range Diff(parse(base), parse(next)) {
		s := c.String()
		if c.Live {
			s += " (live)"
		}
		got = append(got, s)
	}
	want := []string{
		"listener.imap.address: 127.0.0.1:143 -> 127.0.0.1:144",
		"listener.new: absent -> present",
		"listener.old: present -> absent",
		"log.level: info -> debug (live)",
		"management: absent -> present",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwanted %q", got, want)
	}
	if same := Diff(parse(base), parse(base)); len(same) != 0 {
		t.Errorf("of equal configurations: %v", same)
	}
}

func TestFind(t *testing.T) {
	r := &role{Listeners: []Listener{{Name: "a"}, {Name: "b"}}, PublicTLS: &PublicTLS{CertFile: "c"}}
	if got := Find[Listener](r); len(got) != 2 || got[1].Name != "b" {
		t.Errorf("listeners: %+v", got)
	}
	if got := Find[PublicTLS](r); len(got) != 1 || got[0].CertFile != "c" {
		t.Errorf("public: %+v", got)
	}
	if got := Find[Identity](r); len(got) != 0 {
		t.Errorf("absent: %+v", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.hcl", "testdata/good/*.hcl"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var r role
		err := Decode(src, "/nonexistent/x.hcl", &r)
		if err == nil && r.Server.Name == "" {
			t.Error("accepted without its required block")
		}
		if e := (*Error)(nil); err != nil && (!errors.As(err, &e) || len(e.Problems) == 0) {
			t.Errorf("an error without a problem: %v", err)
		}
	})
}
