package message

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixtures reads the messages of testdata by name.
func fixtures(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/messages/*.eml")
	if err != nil || len(paths) < 20 {
		t.Fatalf("fixtures: %d found, %v", len(paths), err)
	}
	all := map[string][]byte{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(p), ".eml")] = b
	}
	return all
}

func mustParse(t testing.TB, b []byte) *Part {
	t.Helper()
	p, err := Parse(bytes.NewReader(b), int64(len(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The golden files were read through by eye, line by line, against the standards; what go-imap says of
// the same messages is compared in TestAgainstGoIMAP.
func TestGolden(t *testing.T) {
	for name, b := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata/messages", name+".want")
			got := describe(mustParse(t, b), b)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func describe(root *Part, b []byte) string {
	var out strings.Builder
	fmt.Fprintf(&out, "ENVELOPE %s\n", short(string(AppendEnvelope(nil, root.Envelope, true))))
	fmt.Fprintf(&out, "BODYSTRUCTURE %s\n", short(string(AppendStructure(nil, root, true, true))))
	root.Walk(func(path []int, p *Part) bool {
		fmt.Fprintf(&out, "%v %s header %q body %q\n", path, p.MediaType(),
			short(string(b[p.HeaderOffset:p.BodyOffset])), short(string(b[p.BodyOffset:p.End])))
		if name := p.Filename(); name != "" {
			fmt.Fprintf(&out, "    filename %q\n", name)
		}
		return true
	})
	return out.String()
}

func short(s string) string {
	if len(s) > 1500 {
		return fmt.Sprintf("%s ... (%d bytes) ... %s", s[:500], len(s), s[len(s)-200:])
	}
	return s
}
