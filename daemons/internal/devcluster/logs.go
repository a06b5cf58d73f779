package devcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// maxLog is the size at which a log is set aside as <name>.log.1 at the next start, in bytes.
const maxLog = 16 << 20

func rotate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > maxLog {
		err = os.Rename(path, path+".1")
	}
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return nil
}

// tail reads what is appended to a log.
type tail struct {
	name string
	f    *os.File
	rest []byte // of the last line, not yet ended
}

func (c *cluster) tails() []*tail {
	var all []*tail
	add := func(name string) {
		f, err := os.Open(c.log(name))
		if err != nil {
			c.say("log of %s: %v", name, err)
			return
		}
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			c.say("log of %s: %v", name, err)
		}
		all = append(all, &tail{name: name, f: f})
	}
	for _, s := range fleet {
		add(s.name)
	}
	add(balancerName)
	return all
}

// follow prints what the servers log, each line with the server's name, until ctx ends.
func (c *cluster) follow(ctx context.Context) {
	if c.Quiet {
		<-ctx.Done()
		return
	}
	tails := c.tails()
	defer func() {
		for _, t := range tails {
			t.f.Close()
		}
	}()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, t := range tails {
			c.copyLines(t)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// copyLines prints the whole lines that a log has got since.
func (c *cluster) copyLines(t *tail) {
	buf := make([]byte, 64<<10)
	for {
		n, err := t.f.Read(buf)
		t.rest = append(t.rest, buf[:n]...)
		lines := bytes.SplitAfter(t.rest, []byte("\n"))
		t.rest = append([]byte(nil), lines[len(lines)-1]...)
		c.mu.Lock()
		for _, line := range lines[:len(lines)-1] {
			fmt.Fprintf(c.Out, "%-8s| %s", t.name, line)
		}
		c.mu.Unlock()
		if err != nil || n == 0 {
			return
		}
	}
}

// tailOf returns the last lines of a log.
func tailOf(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 16 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
