package imapsession

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"shoal/daemons/internal/mailstore"
)

// fill puts n messages into the INBOX of a user.
func (r *rig) fill(user string, n int) {
	r.t.Helper()
	ctx := context.Background()
	acc, err := r.store.Account(ctx, "vol01", "account-"+user)
	if err != nil {
		r.t.Fatal(err)
	}
	mb, err := acc.Open(ctx, "INBOX")
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := r.store.Stage(ctx, "vol01", strings.NewReader(sample), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer m.Close()
	for n > 0 {
		msgs := make([]mailstore.AppendMessage, min(n, 500))
		for i := range msgs {
			msgs[i].Message = m
		}
		if _, err := mb.Append(ctx, msgs); err != nil {
			r.t.Fatal(err)
		}
		n -= len(msgs)
	}
}

// drain reads up to the tagged answer.
func (c *client) drain(command string) (size int64) {
	c.send("z " + command + "\r\n")
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		size += int64(len(line))
		if line[len(line)-2] == '}' || len(line) > 3 && line[len(line)-3] == '}' {
			var n int64
			at := strings.LastIndexByte(string(line), '{')
			fmt.Sscanf(string(line[at+1:]), "%d", &n)
			if _, err := io.CopyN(io.Discard, c.r, n); err != nil {
				c.t.Fatal(err)
			}
			size += n
		}
		if line[0] == 'z' && line[1] == ' ' {
			if line[2] != 'O' {
				c.t.Fatalf("%s: %s", command, line)
			}
			return size
		}
	}
}

// BenchmarkCommands is one command on a mailbox of 10,000 messages. Server, client and store share the
// process.
func BenchmarkCommands(b *testing.B) {
	r := newRig(b, nil)
	r.fill("alice", 10000)
	c := r.connect("alice")
	c.r = bufio.NewReaderSize(c, 1<<20)
	for _, command := range []string{"NOOP", "SELECT INBOX", "FETCH 1:* (FLAGS)", "UID FETCH 1:* (FLAGS)", "FETCH 5000 (UID FLAGS)", "SEARCH UNSEEN",
		"UID SEARCH HEADER Subject zzz", "FETCH 1:1000 (ENVELOPE)", "FETCH 1:1000 (BODY.PEEK[])", "FETCH 1:1000 (BODYSTRUCTURE)"} {
		b.Run(strings.ReplaceAll(command, " ", "_"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.SetBytes(c.drain(command))
			}
		})
	}
}
