package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"shoal/tests/ports"
)

// A tree is a server and everything it forked, in a control group of its own.
type tree struct {
	name  string
	cmd   *exec.Cmd
	group string // folder of the control group (v2)
	done  chan struct{}
	// diskStat is the statistics file of the disk under measurement; empty: its flushes are not counted.
	diskStat string
}

// cgroupRoot finds where the version 2 hierarchy is mounted.
func cgroupRoot() (string, error) {
	f, err := os.Open("/proc/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("no cgroup2 file system is mounted: the CPU of a whole process tree cannot be counted")
}

// start runs a server in a new control group. The caller ends it with stop.
func (b *bench) start(name string, argv ...string) (*tree, error) {
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	group := filepath.Join(root, fmt.Sprintf("shoalbench-%d-%s", os.Getpid(), name))
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	dir, err := os.Open(group)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	t := &tree{name: name, group: group, done: make(chan struct{}), diskStat: b.diskStat}
	t.cmd = exec.Command(argv[0], argv[1:]...)
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	t.cmd.Stdout, t.cmd.Stderr = log, log
	t.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	if err := t.cmd.Start(); err != nil {
		log.Close()
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	go func() { _ = t.cmd.Wait(); log.Close(); close(t.done) }()
	b.atExit(t.stop)
	return t, nil
}

// pids lists the processes now in the tree.
func (t *tree) pids() []int {
	data, err := os.ReadFile(filepath.Join(t.group, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range strings.Fields(string(data)) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// stop asks every process of the tree to end, then makes it.
func (t *tree) stop() {
	if _, err := os.Stat(t.group); err != nil {
		return
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			pids := t.pids()
			if len(pids) == 0 {
				break
			}
			for _, p := range pids {
				_ = syscall.Kill(p, sig)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	_ = os.Remove(t.group)
}

// cpu is the processor time the whole tree has used, exited members included.
func (t *tree) cpu() (time.Duration, error) {
	data, err := os.ReadFile(filepath.Join(t.group, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(data), "\n") {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s has no usage_usec", t.group)
}

// pss is the proportional set size of the tree in bytes.
func (t *tree) pss() (int64, error) {
	var sum int64
	for _, p := range t.pids() {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(data), "\n") {
			if v, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n << 10
			}
		}
	}
	if sum == 0 {
		return 0, fmt.Errorf("%s: no process to measure", t.name)
	}
	return sum, nil
}

// flushes is the number of write barriers completed by the disk under measurement (field 16 of its stat file). The
// journal merges what is asked for at the same moment, so this, not the number of calls, is what a disk sees.
func (t *tree) flushes() int64 {
	data, err := os.ReadFile(t.diskStat)
	if err != nil {
		return 0
	}
	f := strings.Fields(string(data))
	if len(f) < 16 {
		return 0
	}
	n, _ := strconv.ParseInt(f[15], 10, 64)
	return n
}

// A reading is what a run cost.
type reading struct {
	cpu, wall time.Duration
	flushes   int64
}

// measure runs load and tells what it cost the tree.
func (t *tree) measure(load func() error) (reading, error) {
	c0, err := t.cpu()
	if err != nil {
		return reading{}, err
	}
	f0, w0 := t.flushes(), time.Now()
	if err := load(); err != nil {
		return reading{}, err
	}
	wall := time.Since(w0)
	c1, err := t.cpu()
	return reading{cpu: c1 - c0, wall: wall, flushes: t.flushes() - f0}, err
}

// per turns a reading into the columns of a table, per operation.
func (r reading) per(n int) map[string]float64 {
	return map[string]float64{
		"CPU µs per op":       float64(r.cpu.Microseconds()) / float64(n),
		"ops per second":      float64(n) / r.wall.Seconds(),
		"disk flushes per op": float64(r.flushes) / float64(n),
	}
}

// waitPort waits until something accepts on addr, or t ended.
func (t *tree) waitPort(addr string) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return nil
		}
		if len(t.pids()) == 0 {
			return fmt.Errorf("%s ended before it listened on %s", t.name, addr)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not listen on %s", t.name, addr)
}

// freePort gives a loopback address for the rest of the run.
func freePort() (string, error) {
	taken, _, err := ports.Reserve(1)
	if err != nil {
		return "", err
	}
	return taken[0], nil
}
