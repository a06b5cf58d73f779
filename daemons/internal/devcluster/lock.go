package devcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrRunning says that the service runs on this data folder already.
var ErrRunning = errors.New("the service is running on this data folder already")

// ErrNotRunning says that nothing runs on this data folder.
var ErrNotRunning = errors.New("nothing is running on this data folder")

// lock is the claim of a running `shoalctl up` on its data folder: an flock, which ends with the
// process however it ends, on a file that holds the process id. So a left-over file or a reused process
// id can never be taken for a running service.
type lock struct{ f *os.File }

func (l Layout) lockFile() string { return filepath.Join(l.run(), "lock") }

func (l Layout) acquire() (*lock, error) {
	f, err := os.OpenFile(l.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s (process %d); look at it with shoalctl status, stop it with make down", ErrRunning, l.Data, readPID(f.Name()))
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return &lock{f}, nil
}

func (l *lock) release() { l.f.Close() }

// Running returns the process id of the `shoalctl up` that holds the data folder, or ErrNotRunning.
func (l Layout) Running() (pid int, err error) {
	f, err := os.Open(l.lockFile())
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrNotRunning
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	switch {
	case err == nil: // nobody holds it
		return 0, ErrNotRunning
	case !errors.Is(err, syscall.EWOULDBLOCK):
		return 0, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return readPID(f.Name()), nil
}

func readPID(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0
	}
	return pid
}

// Stop asks a running service to drain and waits until it has ended, at most for the given time.
func (l Layout) Stop(within time.Duration) error {
	pid, err := l.Running()
	if err != nil {
		return err
	}
	if pid == 0 {
		return fmt.Errorf("%s is held by a process that did not write its id there", l.lockFile())
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	deadline := time.Now().Add(within)
	for range time.Tick(50 * time.Millisecond) {
		if _, err := l.Running(); errors.Is(err, ErrNotRunning) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d did not end within %v; its log is in %s", pid, within, l.logs())
		}
	}
	return nil
}
