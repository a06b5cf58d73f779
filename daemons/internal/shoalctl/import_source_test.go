package shoalctl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func collect(t *testing.T, s *source) []item {
	t.Helper()
	var all []item
	if err := s.each(t.Context(), func(it item) error {
		all = append(all, it)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMboxSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mbox")
	writeFile(t, path, "From a@b Mon Nov 23 12:00:00 2026\nStatus: RO\nX-Status: AF\nSubject: one\n\n>From here\n\n"+
		"From a@b Mon Nov 23 13:00:00 2026\nSubject: two\r\n\r\nmixed\r\nline ends\n\n"+
		"From a@b Mon Nov 23 14:00:00 2026\nSubject: big\n\n"+strings.Repeat("x", 2000)+"\n")
	s, err := newSource([]string{path}, "mboxrd", 1000)
	if err != nil {
		t.Fatal(err)
	}
	all := collect(t, s)
	if len(all) != 3 {
		t.Fatalf("%d messages, want 3", len(all))
	}
	one := all[0]
	if got, want := string(one.content), "Status: RO\r\nX-Status: AF\r\nSubject: one\r\n\r\nFrom here\r\n"; got != want {
		t.Errorf("message 1: got %q, want %q", got, want)
	}
	if got := slices.Sorted(slices.Values(one.flags)); !slices.Equal(got, []string{`\Answered`, `\Flagged`, `\Seen`}) {
		t.Errorf("message 1: flags %q", got)
	}
	if !one.date.Equal(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("message 1: date %v", one.date)
	}
	if got, want := string(all[1].content), "Subject: two\r\n\r\nmixed\r\nline ends\r\n"; got != want {
		t.Errorf("message 2: got %q, want %q", got, want)
	}
	if all[2].err == nil || all[2].content != nil || !strings.Contains(all[2].err.Error(), "larger than") {
		t.Errorf("message 3, too large: got %v", all[2].err)
	}
	if s.total == 0 || all[2].done > s.total || all[0].done <= 0 {
		t.Errorf("progress %d, %d of %d", all[0].done, all[2].done, s.total)
	}
}

func TestGitMboxTakesTheDateField(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.mbox")
	writeFile(t, path, "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"+
		"From: A <a@b>\nDate: Tue, 24 Nov 2026 10:20:30 +0200\nSubject: x\n\ntext\n")
	s, err := newSource([]string{path}, "auto", 1000)
	if err != nil {
		t.Fatal(err)
	}
	all := collect(t, s)
	if len(all) != 1 || !all[0].date.Equal(time.Date(2026, 11, 24, 8, 20, 30, 0, time.UTC)) {
		t.Errorf("got %+v", all)
	}
}

func TestMaildirSource(t *testing.T) {
	root := t.TempDir()
	for _, folder := range []string{"", ".Archive.2025"} {
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(root, folder, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeFile(t, filepath.Join(root, "cur/200.b.host:2,SF"), "Subject: second\n\n")
	writeFile(t, filepath.Join(root, "new/1000.a.host"), "Subject: third\n\n")
	writeFile(t, filepath.Join(root, "cur/100.c.host:2,"), "Subject: first\n\n")
	writeFile(t, filepath.Join(root, ".Archive.2025/cur/50.d.host:2,T"), "Subject: old\n\n")
	s, err := newSource([]string{root}, "auto", 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range collect(t, s) {
		got = append(got, it.mailbox+" "+strings.TrimSpace(string(it.content))+" "+strings.Join(it.flags, ","))
	}
	want := []string{`INBOX Subject: first `, `INBOX Subject: second \Flagged,\Seen`, `INBOX Subject: third `, `Archive/2025 Subject: old \Deleted`}
	for i := range got {
		parts := strings.SplitN(got[i], " ", 4)
		flags := slices.Sorted(slices.Values(strings.Split(parts[3], ",")))
		got[i] = strings.Join(append(parts[:3], strings.Join(flags, ",")), " ")
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSourceRefusals(t *testing.T) {
	empty := t.TempDir()
	text := filepath.Join(t.TempDir(), "text")
	writeFile(t, text, "this is no mbox\n")
	if _, err := newSource([]string{"/nonexistent"}, "auto", 1); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("a path that is not there: %v", err)
	}
	if _, err := newSource([]string{empty}, "auto", 1); err == nil || !strings.Contains(err.Error(), empty) {
		t.Errorf("a folder that is no Maildir: %v", err)
	}
	if _, err := newSource([]string{text}, "elm", 1); !errors.As(err, &usageError{}) {
		t.Errorf("an unknown format: %v", err)
	}
	s, err := newSource([]string{text}, "auto", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.each(t.Context(), func(item) error { return nil }); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("a file that is no mbox: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	good := filepath.Join(t.TempDir(), "good")
	writeFile(t, good, "From a@b Mon Nov 23 12:00:00 2026\nSubject: one\n\nx\n")
	if s, err = newSource([]string{good}, "auto", 1000); err != nil {
		t.Fatal(err)
	}
	if err := s.each(ctx, func(item) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after Ctrl-C: %v", err)
	}
}
