// Package powercut shows on the kernel's own ext4 and XFS that a power cut loses no mail that was acknowledged: the disk is one
// of package disk, which knows for each moment what a power cut would have left; the image is mounted, its journal replayed, and every
// message that had been acknowledged by then is looked for.
//
// The test runs itself again in namespaces of its own (mounts, processes). Root is needed.
package powercut

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/daemons/powercut"
	"shoal/tests/disk"
)

const inside = "SHOAL_POWERCUT_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		for _, err := range []error{
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("proc", "/proc", "proc", 0, ""),
		} {
			if err != nil {
				fmt.Fprintln(os.Stderr, "tests/powercut:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the signal at the parent's death is tied to this thread
	c := exec.Command(os.Args[0], os.Args[1:]...)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	signal.Ignore(os.Interrupt)
	err := c.Run()
	if c.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "tests/powercut: root is needed (namespaces of mounts and processes):", err)
		os.Exit(1)
	}
	if code := c.ProcessState.ExitCode(); code >= 0 {
		os.Exit(code)
	}
	os.Exit(1)
}

// machine is a disk with a volume on it.
type machine struct {
	t   *testing.T
	d   *disk.Disk
	fs  string
	dir string // where it is mounted
	tmp string
}

func newMachine(t *testing.T, fs string) *machine {
	t.Helper()
	m := &machine{t: t, fs: fs, tmp: t.TempDir()}
	// Images are written and thrown away: in memory.
	if err := unix.Mount("images", m.tmp, "tmpfs", 0, "size=4g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(m.tmp, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	m.dir = filepath.Join(m.tmp, "volume")
	file := filepath.Join(m.tmp, "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{m.dir, filepath.Join(m.tmp, "after")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if m.d, err = disk.New(file, fs, 320<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.d.Close() })
	if err := m.d.Mount(m.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(m.dir, unix.MNT_DETACH) })
	return m
}

func (m *machine) open(dir, server string, broken bool) *powercut.Volume {
	m.t.Helper()
	v, err := powercut.Open(dir, server, broken)
	if err != nil {
		m.t.Fatal(err)
	}
	return v
}

// load delivers messages and returns the receipts.
func (m *machine) load(v *powercut.Volume, sessions, n int) []powercut.Receipt {
	m.t.Helper()
	out, err := v.Deliver(sessions, n, m.d.Moment)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// lost counts the receipts of before a moment that an image of it does not honour.
func (m *machine) lost(receipts []powercut.Receipt, moment int, keep func() bool) (lost, of int) {
	m.t.Helper()
	image, dir := filepath.Join(m.tmp, "image"), filepath.Join(m.tmp, "after")
	if err := m.d.Image(moment, image, keep); err != nil {
		m.t.Fatal(err)
	}
	if err := disk.Mount(m.fs, image, dir); err != nil {
		m.t.Fatal(err)
	}
	v := m.open(dir, "after", false)
	var due []powercut.Receipt
	for _, r := range receipts {
		if r.Moment <= moment {
			due = append(due, r)
		}
	}
	lost, err := v.Lost(due)
	if err != nil {
		m.t.Errorf("power cut at moment %d: %v", moment, err)
	}
	for _, err := range []error{v.Close(), disk.Unmount(dir)} {
		if err != nil {
			m.t.Error(err)
		}
	}
	return lost, len(due)
}

var fileSystems = []string{"ext4", "xfs"}

// TestPowerCut: at moments all over a load of 1, of 8 and of 32 sessions at once, nothing is lost that was acknowledged, whether nothing, all
// or some of what had not been flushed got to the disk. And the flushes are as few as docs/store.md says.
func TestPowerCut(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs, func(t *testing.T) {
			m := newMachine(t, fs)
			s := m.open(m.dir, "box1", false)
			m.load(s, 4, powercut.Accounts*4) // accounts come into being
			var all []powercut.Receipt
			for _, load := range []struct {
				sessions, messages int
				flushes            float64 // of the journal, at most, per message
			}{{1, 60, 1.1}, {8, 300, 0.7}, {32, 300, 0.4}} {
				before := m.d.Flushes()
				all = append(all, m.load(s, load.sessions, load.messages)...)
				// A write of the journal is a flush, the write, and another flush: the disk knows no FUA.
				got := float64(m.d.Flushes()-before) / 2 / float64(load.messages)
				t.Logf("%d sessions: %.2f flushes of the journal per message", load.sessions, got)
				if got > load.flushes {
					t.Errorf("%d sessions: %.2f flushes of the journal per message, want at most %.1f", load.sessions, got, load.flushes)
				}
			}
			if t.Failed() {
				return
			}
			r := rand.New(rand.NewPCG(3, 4))
			sum := 0
			for i := range 12 {
				moment := all[r.IntN(len(all))].Moment
				keep := []func() bool{func() bool { return false }, func() bool { return true }, disk.Torn(uint64(i))}[i%3]
				lost, of := m.lost(all, moment, keep)
				if lost > 0 {
					t.Errorf("power cut at moment %d: %d of %d acknowledged messages lost", moment, lost, of)
				}
				sum += of
			}
			t.Logf("12 power cuts, %d acknowledged messages looked for", sum)
			_ = s.Close()
		})
	}
}

// TestPowerCutWithoutData shows that the test above finds mail that is lost.
func TestPowerCutWithoutData(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs, func(t *testing.T) {
			m := newMachine(t, fs)
			s := m.open(m.dir, "box1", true)
			all := m.load(s, 8, 60)
			lost, of := m.lost(all, all[len(all)-1].Moment, func() bool { return false })
			t.Logf("%d of %d acknowledged messages lost", lost, of)
			if lost == 0 {
				t.Errorf("the data of messages was not put onto the device, and all %d survived", of)
			}
			_ = s.Close()
		})
	}
}
