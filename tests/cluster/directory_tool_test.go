package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The operator's commands for the directory: what they show, what they change, and that a preview changes nothing.
func TestDirectoryCommands(t *testing.T) {
	s := own(t)
	s.inStep(t)
	dir := t.TempDir()
	alice := "uid=alice,associatedDomain=example.test,ou=domains,o=shoal"
	title := func() string {
		out, _ := s.tryShoalctl(t, "directory", "search", "alice@example.test", "title")
		return out
	}
	if out := s.shoalctl(t, "directory", "search", "alice@example.test"); !strings.Contains(out, "dn: "+alice+"\n") || strings.Contains(out, "userPassword") {
		t.Errorf("search: %s", out)
	}
	if out, err := s.tryShoalctl(t, "directory", "search", "nobody@example.test"); exitCode(err) != 3 {
		t.Errorf("search for what is not there: %v %s", err, out)
	}

	file := filepath.Join(dir, "change.ldif")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("dn: " + alice + "\ntitle: Captain\n\ndn: ou=extra,o=shoal\nobjectClass: organizationalUnit\n")
	if out := s.shoalctl(t, "directory", "apply", "--dry-run", file); !strings.Contains(out, "+ title: Captain") || !strings.Contains(out, "add ou=extra,o=shoal") || strings.Contains(title(), "Captain") {
		t.Errorf("a preview: %s\n%s", out, title())
	}
	if out, err := s.tryShoalctl(t, "directory", "apply", file); exitCode(err) != 2 || strings.Contains(title(), "Captain") {
		t.Errorf("without a terminal and without --yes: %v %s", err, out)
	}
	s.shoalctl(t, "directory", "apply", "--yes", file)
	if !strings.Contains(title(), "title: Captain") {
		t.Errorf("after apply: %s", title())
	}
	if out := s.shoalctl(t, "directory", "apply", "--yes", file); !strings.Contains(out, "nothing to change") {
		t.Errorf("the same again: %s", out)
	}
	write("dn: " + alice + "\nnonsense\n")
	if out, err := s.tryShoalctl(t, "directory", "apply", "--yes", file); exitCode(err) != 1 || !strings.Contains(out, "line 2") {
		t.Errorf("a file with a mistake: %v %s", err, out)
	}

	editor := filepath.Join(dir, "editor")
	if err := os.WriteFile(editor, []byte("#!/bin/sh\nsed -i 's/^title: Captain$/title: Admiral/' \"$1\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", editor)
	if out := s.shoalctl(t, "directory", "edit", "--dry-run", "alice@example.test"); !strings.Contains(out, "- title: Captain") || !strings.Contains(out, "+ title: Admiral") || !strings.Contains(title(), "Captain") {
		t.Errorf("edit --dry-run: %s", out)
	}
	backup := filepath.Join(dir, "directory.db")
	s.shoalctl(t, "directory", "backup", backup)
	s.shoalctl(t, "directory", "edit", "--yes", "alice@example.test")
	if !strings.Contains(title(), "title: Admiral") {
		t.Errorf("after edit: %s", title())
	}
	if out, err := s.tryShoalctl(t, "directory", "backup", backup); exitCode(err) != 3 {
		t.Errorf("a backup over another: %v %s", err, out)
	}

	export := filepath.Join(dir, "all.ldif")
	s.shoalctl(t, "directory", "export", export)
	text, err := os.ReadFile(export)
	if err != nil || !strings.HasPrefix(string(text), "version: 1\n\ndn: o=shoal\n") || !strings.Contains(string(text), "title: Admiral") || strings.Contains(string(text), "ARGON2") {
		t.Errorf("export: %v %.300s", err, text)
	}

	s.inStep(t)
	s.shoalctl(t, "directory", "restore", "--yes", backup)
	for _, vault := range vaultNames {
		out := ""
		wait(t, 30*time.Second, func() bool {
			out, _ = s.asRoot(t, vault, "", "ldapsearch", "-LLL", "-b", alice, "-s", "base", "(objectClass=*)", "title")
			return strings.Contains(out, "title: Captain")
		}, func() string { return vault + " has the restored content: " + out })
	}
	s.curlSend(t, "alice@example.test", message("after-restore", 100))
}
