package sieve

import (
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	for script, want := range map[string]string{
		"keep;":                     "",
		"if true { stop; }\nkeep;":  "",
		"if true { stop;\n keep; }": "line 2, column 2: nothing behind stop is ever done",
		`require "fileinto"; fileinto "Entw&APw-rfe";`: `line 1, column 21: names of mailboxes are UTF-8 here`,
		`require "fileinto"; fileinto "R&D";`:          "",
	} {
		text := ""
		if w := compile(t, script).Warnings(); len(w) > 0 {
			text = w.Error()
		}
		if !strings.HasPrefix(text, want) || want == "" && text != "" {
			t.Errorf("%s: %q, want %q", script, text, want)
		}
	}
}

// Of several scripts the first one that has an answer gives it.
func TestVacationOfSeveralScripts(t *testing.T) {
	o, err := Run(t.Context(), env(t, plainMail), compile(t, `require "vacation"; vacation "a";`), compile(t, `require "vacation"; vacation "b";`))
	if got := describe(o); err != nil || !strings.Contains(got, `"a"`) || strings.Contains(got, `"b"`) || len(o.Notes) != 1 {
		t.Errorf("%s %q %v", got, o.Notes, err)
	}
}
