package cluster

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// listCommands are what mail programs ask for to show a mailbox.
var listCommands = []string{
	"(ENVELOPE)",
	"(UID FLAGS RFC822.SIZE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT MESSAGE-ID REFERENCES CONTENT-TYPE LIST-POST X-PRIORITY)])",
}

// lists has Python's imaplib list a mailbox at one box, and returns a digest of each answer.
func (s *service) lists(t *testing.T, u user, box, mailbox string) []string {
	t.Helper()
	port, err := strconv.Atoi(portOf(s.address("imaps", box)))
	if err != nil {
		t.Fatal(err)
	}
	job, err := json.Marshal(map[string]any{"port": port, "ca": s.CAFile, "user": u.Address, "password": u.Password, "mailbox": mailbox, "commands": listCommands})
	if err != nil {
		t.Fatal(err)
	}
	out, err := tryCommand(t, string(job), "python3", filepath.Join("testdata", "python", "lists.py"))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(out), "\n")
}

// packed counts the records in the packs of a data folder, by their heads as docs/store.md describes them.
func packed(t *testing.T, data string) (files, records int) {
	t.Helper()
	err := filepath.Walk(data, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || filepath.Base(filepath.Dir(path)) != "c" || !strings.HasPrefix(info.Name(), "s1.") {
			return nil // also what went away meanwhile
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) < 32 || string(b[:16]) != "shoal-cache 1.0\n" {
			return nil
		}
		files++
		records += int(binary.LittleEndian.Uint32(b[16:]))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, records
}

// opened runs do and counts the files in m/ and c/ that a server opens meanwhile.
func (s *service) opened(t *testing.T, server string, do func()) (messages, packs int) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-e", "trace=open,openat", "-o", trace, "-p", strconv.Itoa(s.pid(server)))
	says := &output{}
	cmd.Stderr = says
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, 20*time.Second, func() bool { return strings.Contains(says.String(), "attached") }, func() string { return "strace is attached: " + says.String() })
	do()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	files := regexp.MustCompile(`/b/[^/"]+/(m/\d+/|c/s1)`).FindAllStringSubmatch(string(text), -1)
	for _, f := range files {
		if f[1][0] == 'm' {
			messages++
		} else {
			packs++
		}
	}
	return messages, packs
}

// A mailbox of 10,000 messages is listed by Python's imaplib: first at one box, which reads the messages and leaves summaries on
// the volume, then at the other, which has never seen the mailbox, and opens a handful of files for it. Damaged
// packs, and none at all, make no difference to the answers.
func TestColdBoxListsFromSummaries(t *testing.T) {
	const some, all = 500, 10000
	s := own(t)
	s.shoalctl(t, "domain", "list") // it answers
	u := s.account(t, "reader")
	s.spread(t, u.Address)

	conn, err := tls.Dial("tcp", s.address("imaps", "box1"), s.tls(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "a LOGIN %s %s\r\nb APPEND INBOX", u.Address, u.Password)
	for i := range some {
		text := fmt.Sprintf("Received: from a.example.org by b.example.test; Mon, 23 Nov 2026 12:00:00 +0000\r\nFrom: Sender %[1]d <s%[1]d@example.org>\r\nTo: %[2]s, other@example.org\r\n"+
			"Subject: number %[1]d\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%[1]d@example.org>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThe text of number %[1]d.\r\n", i, u.Address)
		fmt.Fprintf(&b, " {%d+}\r\n%s", len(text), text)
	}
	b.WriteString("\r\nc SELECT INBOX\r\n")
	for i := 1; i < all/some; i++ {
		fmt.Fprintf(&b, "d%d COPY 1:%d INBOX\r\n", i, some)
	}
	b.WriteString("e LOGOUT\r\n")
	if _, err := conn.Write([]byte(b.String())); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if !strings.Contains(said.String(), "\r\ne OK") || strings.Contains(said.String(), " NO ") || strings.Contains(said.String(), " BAD ") {
		t.Fatalf("filling the mailbox: %.2000s", said.String())
	}

	var want []string
	messages, _ := s.opened(t, "box1", func() { want = s.lists(t, u, "box1", "INBOX") })
	if len(want) != 2 || !strings.HasPrefix(want[0], strconv.Itoa(all)+" ") || messages < all {
		t.Fatalf("the first listing: %v, %d messages opened", want, messages)
	}
	// What is left over when a pack was written makes one of its own from 32 records on. It says how many it waits for.
	complete := func() (left int) {
		t.Helper()
		var files, records int
		wait(t, 60*time.Second, func() bool {
			files, records = packed(t, s.data)
			return records > all-32
		}, func() string { return fmt.Sprintf("%d records in packs, there are %d in %d", all, records, files) })
		return all - records
	}
	left := complete()
	compare := func(what, box string) {
		t.Helper()
		if got := s.lists(t, u, box, "INBOX"); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	messages, packs := s.opened(t, "box1", func() { compare("in memory", "box1") })
	if messages+packs != 0 {
		t.Errorf("in memory: %d messages and %d packs opened", messages, packs)
	}
	messages, packs = s.opened(t, "box2", func() { compare("a cold box", "box2") })
	if messages > left || packs == 0 || packs > 8 {
		t.Errorf("a cold box: %d messages and %d packs opened", messages, packs)
	}
	t.Logf("a box that has never seen the mailbox lists %d messages with %d files opened", all, messages+packs)
	if hits, misses := s.metric(t, "box2", "shoal_store_summary_hits_total"), s.metric(t, "box2", "shoal_store_summary_misses_total"); hits+misses < 2*all || misses > float64(left) {
		t.Errorf("box2 counts %v hits and %v misses", hits, misses)
	}

	// Every pack is spoilt; both boxes begin anew.
	err = filepath.Walk(s.data, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || filepath.Base(filepath.Dir(path)) != "c" {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := 100; i < len(content); i += 3000 {
			content[i] ^= 0x40
		}
		return os.WriteFile(path, content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, box := range []string{"box1", "box2"} {
		old := s.pid(box)
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		wait(t, 60*time.Second, func() bool { p := s.pid(box); return p != 0 && p != old }, func() string { return box + " is back" })
	}
	s.waitUp(t)
	compare("damaged packs", "box2")
	if n := s.metric(t, "box2", "shoal_store_summary_packs_rejected_total"); n == 0 {
		t.Error("no damaged pack was noticed")
	}
	left = complete()
	messages, packs = s.opened(t, "box1", func() { compare("packs made again", "box1") })
	if messages > left || packs == 0 || packs > 8 {
		t.Errorf("packs made again: %d messages and %d packs opened", messages, packs)
	}
}
