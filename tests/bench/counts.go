package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// calls is what a run asked of the kernel, counted with strace. Tracing slows the server, so this is a run of
// its own whose times are not used.
type calls struct {
	all, syncs int64
}

// count traces every process of the tree while load runs.
func (t *tree) count(dir string, load func() error) (calls, error) {
	exe, err := need("strace", "strace")
	if err != nil {
		return calls{}, err
	}
	out := filepath.Join(dir, t.name+".strace")
	argv := []string{"-f", "-qq", "-c", "-U", "calls,name", "-o", out}
	for _, p := range t.pids() {
		argv = append(argv, "-p", strconv.Itoa(p))
	}
	cmd := exec.Command(exe, argv...)
	if err := cmd.Start(); err != nil {
		return calls{}, err
	}
	defer func() { _ = cmd.Process.Kill() }()
	for deadline := time.Now().Add(10 * time.Second); !traced(t.pids()); {
		if time.Now().After(deadline) {
			return calls{}, fmt.Errorf("strace did not attach to %s", t.name)
		}
		time.Sleep(20 * time.Millisecond)
	}
	loadErr := load()
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	if loadErr != nil {
		return calls{}, loadErr
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return calls{}, err
	}
	var c calls
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil || f[1] == "total" {
			continue
		}
		c.all += n
		switch f[1] {
		case "fsync", "fdatasync", "sync_file_range", "syncfs", "msync":
			c.syncs += n
		}
	}
	return c, nil
}

// traced tells whether every thread of the processes has a tracer.
func traced(pids []int) bool {
	for _, p := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if err == nil && strings.Contains(string(data), "TracerPid:\t0\n") {
			return false
		}
	}
	return true
}

// add puts the counted calls into the columns of a table, per operation.
func (c calls) add(to map[string]float64, n int) {
	to["system calls per op"] = float64(c.all) / float64(n)
	to["sync calls per op"] = float64(c.syncs) / float64(n)
}
