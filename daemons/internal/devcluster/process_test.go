package devcluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// said collects what a process says about itself.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.text, format+"\n", args...)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func shell(t *testing.T, script string) (*process, *said) {
	t.Helper()
	folder := t.TempDir()
	s := &said{}
	return &process{
		name: "probe", path: "/bin/sh", args: []string{"-c", script}, dir: folder,
		log: filepath.Join(folder, "log"), pidFile: filepath.Join(folder, "pid"),
		say: s.say, stopBy: syscall.SIGTERM, grace: 5 * time.Second,
	}, s
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := poll(ctx, func() (bool, error) { return f(), nil }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (p *process) logged() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
}

func TestProcessIsStartedAgain(t *testing.T) {
	p, s := shell(t, `echo up; while :; do sleep 0.05; done`)
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the first start", func() bool { return strings.Contains(p.logged(), "up") })
	pid, _ := p.alive()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "a second start", func() bool { return strings.Count(p.logged(), "up") == 2 })
	again, restarts := p.alive()
	if again == pid || restarts != 1 {
		t.Errorf("got process %d after %d with %d restarts", again, pid, restarts)
	}
	p.stop(t.Context())
	if pid, _ := p.alive(); pid != 0 {
		t.Errorf("process %d is there after stop", pid)
	}
	if _, err := os.Stat(p.pidFile); err == nil {
		t.Error("the file with the process id is there after stop")
	}
	if !strings.Contains(s.String(), "probe ended (signal: killed)") {
		t.Errorf("what happened was not said: %q", s)
	}
}

func TestStopIsByTheSignal(t *testing.T) {
	p, s := shell(t, `trap 'echo drained; exit 0' TERM; echo up; while :; do sleep 0.05; done`)
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	until(t, "start", func() bool { return strings.Contains(p.logged(), "up") })
	p.stop(t.Context())
	if got := p.logged(); !strings.HasSuffix(got, "drained\n") {
		t.Errorf("log %q: the program did not get its signal", got)
	}
	if s.String() != "" {
		t.Errorf("a stop that was asked for was reported: %q", s)
	}
}

func TestStopKillsWhatHangs(t *testing.T) {
	p, s := shell(t, `trap '' TERM; echo up; while :; do sleep 0.05; done`)
	p.grace = 100 * time.Millisecond
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	until(t, "start", func() bool { return strings.Contains(p.logged(), "up") })
	p.stop(t.Context())
	if !strings.Contains(s.String(), "it is killed") {
		t.Errorf("the kill was not said: %q", s)
	}
}

func TestStopWhileWaitingToStartAgain(t *testing.T) {
	p, _ := shell(t, `exit 3`)
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the end", func() bool { pid, _ := p.alive(); return pid == 0 })
	p.stop(t.Context()) // must return
}

func TestStartFails(t *testing.T) {
	p, _ := shell(t, "")
	p.path = "/nonexistent"
	if err := p.start(); err == nil {
		t.Error("no error for a program that is not there")
	}
}

func TestFollowPrintsWholeLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "box1.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	c := &cluster{Options: Options{Out: &out}}
	tail := &tail{name: "box1", f: f}
	write := func(s string) {
		t.Helper()
		w, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.WriteString(s); err != nil {
			t.Fatal(err)
		}
		c.copyLines(tail)
	}
	write("one\ntw")
	write("o\n")
	write("thr")
	if got, want := out.String(), "box1    | one\nbox1    | two\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
