package imapsession

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

// whole reads the answer to a command, literals included, up to the tagged line, which is the last.
func (c *client) whole(command string) string {
	c.t.Helper()
	c.send("z " + command + "\r\n")
	c.SetReadDeadline(time.Now().Add(60 * time.Second))
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%s: %v after %q", command, err, line)
		}
		b.WriteString(line)
		if strings.HasPrefix(line, "z ") {
			return b.String()
		}
		n := 0
		if at := strings.LastIndexByte(line, '{'); at >= 0 && strings.HasSuffix(line, "}\r\n") {
			if k, _ := fmt.Sscanf(line[at:], "{%d}", &n); k == 1 {
				if _, err := io.CopyN(&b, c.r, int64(n)); err != nil {
					c.t.Fatal(command, err)
				}
			}
		}
	}
}

// corpus are the messages of package message, as they are and with some damage, and what Debian's spamassassin brings.
func corpus(t testing.TB) (all []string) {
	t.Helper()
	paths, err := filepath.Glob("../message/testdata/messages/*.eml")
	if err != nil || len(paths) < 20 {
		t.Fatal(len(paths), err)
	}
	for _, name := range []string{"sample-spam.txt", "sample-nonspam.txt"} {
		paths = append(paths, "/usr/share/doc/spamassassin/examples/"+name)
	}
	r := rand.New(rand.NewPCG(9, 9))
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
		for range 8 {
			bad := append([]byte(nil), b...)
			for range 1 + len(bad)/200 {
				if len(bad) == 0 {
					break
				}
				switch at := r.IntN(len(bad)); r.IntN(5) {
				case 0:
					bad[at] = byte(r.Uint32())
				case 1:
					bad = append(bad[:at], bad[min(len(bad), at+r.IntN(20)):]...)
				case 2:
					bad = append(bad[:at:at], append([]byte("\r\n"), bad[at:]...)...)
				case 3:
					from := r.IntN(len(bad))
					bad = append(bad[:at:at], append([]byte(string(bad[from:min(len(bad), from+r.IntN(80))])), bad[at:]...)...)
				case 4:
					bad[at] = "\x00\r\n\t\"(<:=?"[r.IntN(10)]
				}
			}
			all = append(all, string(bad))
		}
	}
	// A header too long to keep, a message too long for memory, and one whose structure is too long.
	return append(all,
		"Subject: long\r\nTo: "+strings.Repeat("a@b.test, ", 5000)+"c@d.test\r\n\r\nx",
		"Subject: big\r\nFrom: a@b.test\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nthe text\r\n--x\r\nContent-Type: image/png\r\n\r\n"+strings.Repeat("0123456789\r\n", 40000)+"--x--\r\n",
		"Subject: parts\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"+strings.Repeat("--x\r\nContent-Type: a/b; name=\"012345678901234567890123456789\"\r\n\r\ny\r\n", 1500)+"--x--\r\n",
	)
}

// summaryStore is a store on a volume that others use too, with memory for summaries.
func summaryStore(t testing.TB, server string, fs vfs.FS, dir string, memory int64) *mailstore.Store {
	t.Helper()
	store, err := mailstore.New(mailstore.Options{Server: server, FS: fs, Clock: clock.System(), Log: quiet(), SummaryBytes: memory})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.AddVolume("vol01", dir, volumeID); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// fetchCommands are what is answered from summaries, by itself and beside what is not.
var fetchCommands = []string{
	"FETCH 1:* (ENVELOPE)",
	"FETCH 1:* (BODYSTRUCTURE)",
	"FETCH 1:* (BODY)",
	"FETCH 1:* (PREVIEW)",
	"FETCH 1:* ALL",
	"FETCH 1:* FULL",
	"FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT MESSAGE-ID REFERENCES IN-REPLY-TO CONTENT-TYPE LIST-POST)])",
	"UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (From Subject X-Priority)]<3.40> ENVELOPE)",
	"FETCH 1:* (BODY.PEEK[HEADER.FIELDS (Received From)] ENVELOPE)",
	"FETCH 1:* (BODY.PEEK[HEADER.FIELDS.NOT (From)] BODYSTRUCTURE)",
	"FETCH 1:* (ENVELOPE BODY.PEEK[1] BODY.PEEK[1.MIME])",
	"FETCH 1:* (BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.50> PREVIEW)",
	"FETCH 1:* (BINARY.SIZE[1])",
	"FETCH 3 (ENVELOPE PREVIEW BODYSTRUCTURE)",
	"FETCH 5:7 (ENVELOPE BODY.PEEK[2])",
	"SEARCH FROM example",
	"SEARCH OR SUBJECT re TO bob",
	"SEARCH HEADER Message-ID \"\"",
	"SEARCH SENTSINCE 1-Jan-2005 NOT SUBJECT test",
	"SEARCH HEADER Received by",
	"SEARCH TEXT the SENTBEFORE 1-Jan-2030",
	"SEARCH BODY hello",
	"SORT (SUBJECT DISPLAYFROM TO DATE) UTF-8 ALL",
	"UID SORT (REVERSE CC SIZE DATE) UTF-8 SUBJECT e",
	"SORT (REVERSE DATE) UTF-8 ALL",
	"THREAD REFERENCES UTF-8 ALL",
	"UID THREAD ORDEREDSUBJECT UTF-8 ALL",
}

// TestSummariesSayTheSame: what is answered with summaries is byte for byte what is answered without: when they are made,
// when they are in memory, and by a server that finds them on the volume.
func TestSummariesSayTheSame(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	if err := mem.Mkdir("/vol"); err != nil {
		t.Fatal(err)
	}
	if err := mailstore.InitVolume(mem, "/vol", volumeID); err != nil {
		t.Fatal(err)
	}
	plain := newRigOn(t, summaryStore(t, "box1", mem, "/vol", -1), nil)
	plain.deliver("alice", "", corpus(t)...)
	for _, enable := range []string{"NOOP", "ENABLE IMAP4rev2", "ENABLE UTF8=ACCEPT"} {
		open := func(r *rig) *client {
			c := r.connect("alice")
			c.ok(enable)
			c.ok("SELECT INBOX")
			return c
		}
		reference := open(plain)
		want := map[string]string{}
		for _, command := range fetchCommands {
			if want[command] = reference.whole(command); len(want[command]) < 20 && command != "SEARCH BODY hello" {
				t.Fatalf("%s: %q", command, want[command])
			}
		}
		compare := func(who string, c *client, commands []string) {
			t.Helper()
			for _, command := range commands {
				got, want := c.whole(command), want[command]
				if got != want {
					at := 0
					for at < min(len(got), len(want)) && got[at] == want[at] {
						at++
					}
					from := max(0, at-100)
					t.Fatalf("%s, %s, %s: byte %d:\n%.300q\nwant\n%.300q", who, enable, command, at, got[from:], want[from:])
				}
			}
		}
		backwards := append([]string(nil), fetchCommands...)
		for i, j := 0, len(backwards)-1; i < j; i, j = i+1, j-1 {
			backwards[i], backwards[j] = backwards[j], backwards[i]
		}
		first := newRigOn(t, summaryStore(t, "box2", mem, "/vol", 64<<20), nil)
		compare("first", open(first), fetchCommands)
		compare("again", open(first), fetchCommands)
		compare("in another order", open(newRigOn(t, summaryStore(t, "box3", mem, "/vol", 64<<20), nil)), backwards)
		waitFor(t, "pack on the volume", func() bool {
			packs, err := find(mem, "/vol/a", func(path string) bool { return strings.Contains(path, "/c/s1.") })
			if err != nil {
				t.Fatal(err)
			}
			return len(packs) > 0
		})
		compare("cold", open(newRigOn(t, summaryStore(t, "box4", mem, "/vol", 64<<20), nil)), backwards)
		compare("with little memory", open(newRigOn(t, summaryStore(t, "box5", mem, "/vol", 256<<10), nil)), fetchCommands)
	}
}

// A damaged message does not get into a summary, and a summary of one that was damaged later still answers.
func TestSummariesOfDamagedMessages(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	r := newRigOn(t, newStore(t, "box1", mem, "/"), nil)
	var texts []string
	for i := range 50 {
		texts = append(texts, fmt.Sprintf("Subject: number %02d\r\nFrom: a@b.test\r\n\r\ntext", i))
	}
	r.deliver("alice", "", texts...)
	ctx := context.Background()
	acc, err := r.store.Account(ctx, "vol01", "account-alice")
	if err != nil {
		t.Fatal(err)
	}
	mb, err := acc.Open(ctx, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	m, _ := mb.Cached().ByUID(7)
	paths, err := find(mem, "/a", func(path string) bool { return strings.HasSuffix(path, m.ID()) })
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	change := func(from, to string) {
		t.Helper()
		f, err := mem.Create(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(strings.Replace(texts[6], from, to, 1))); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	c := r.connect("alice")
	c.ok("SELECT INBOX")
	change("number", "NUMBER")
	if got := c.whole("FETCH 1:* (ENVELOPE)"); !strings.Contains(got, "NUMBER 06") {
		t.Errorf("%q", got)
	}
	change("", "")
	for range 2 {
		if got := c.whole("FETCH 1:* (ENVELOPE)"); !strings.Contains(got, "number 06") {
			t.Errorf("the damage was kept: %q", got)
		}
	}
}

// find lists the files below a directory that match.
func find(fs vfs.FS, dir string, match func(path string) bool) (out []string, err error) {
	names, err := fs.ReadDir(dir, nil)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		path := dir + "/" + n
		i, err := fs.Lstat(path)
		switch {
		case err != nil:
		case i.Kind == vfs.KindDir:
			more, err := find(fs, path, match)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		case match(path):
			out = append(out, path)
		}
	}
	return out, nil
}

// cpuTime is the CPU time of this process.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSummaries is what is answered from summaries, on a local file system: without them, with them in memory,
// and with so little memory that they are read from packs each time. Server, client and store share the process.
func BenchmarkSummaries(b *testing.B) {
	const n = 10000
	fs, dir := vfs.OS(), b.TempDir()
	if err := mailstore.InitVolume(fs, dir, volumeID); err != nil {
		b.Fatal(err)
	}
	newRigOn(b, summaryStore(b, "box0", fs, dir, -1), nil).fill("alice", n)
	for _, x := range []struct {
		name   string
		memory int64
	}{{"without", -1}, {"with", 64 << 20}, {"packs", 1 << 20}} {
		r := newRigOn(b, summaryStore(b, "box1-"+x.name[:4], fs, dir, x.memory), nil)
		c := r.connect("alice")
		c.r = bufio.NewReaderSize(c, 1<<20)
		c.ok("SELECT INBOX")
		c.SetReadDeadline(time.Time{})
		for _, command := range []string{"FETCH 1:* (ENVELOPE)", "FETCH 1:* (BODYSTRUCTURE)",
			"FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT MESSAGE-ID REFERENCES CONTENT-TYPE)])",
			"FETCH 1:* (PREVIEW)", "SEARCH SUBJECT zzz", "SEARCH SENTSINCE 1-Jan-2026"} {
			b.Run(x.name+"/"+strings.ReplaceAll(command[:min(len(command), 30)], " ", "_"), func(b *testing.B) {
				c.drain(command)
				b.ReportAllocs()
				b.ResetTimer()
				before := cpuTime(b)
				for range b.N {
					b.SetBytes(c.drain(command))
				}
				b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N)/n, "CPU-µs/message")
			})
		}
	}
}
