package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Restart delays: doubled with each end that comes soon after the start.
const (
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 10 * time.Second
	livesLong    = 2 * time.Second // a process that lived so long begins anew at firstBackoff
)

// process keeps one program running until it is told to stop.
type process struct {
	name    string
	path    string
	args    []string
	dir     string
	log     string // where its output goes, appended
	pidFile string
	say     func(format string, args ...any)
	stopBy  syscall.Signal
	grace   time.Duration // between stopBy and SIGKILL

	mu       sync.Mutex
	running  *os.Process // nil while the program is down
	restarts int
	stopping bool
	wake     chan struct{} // closed by stop
	done     chan struct{} // closed when the program has ended for good
	first    chan error    // the first start's outcome
}

func (p *process) start() error {
	p.wake = make(chan struct{})
	p.done = make(chan struct{})
	p.first = make(chan error, 1)
	go p.supervise()
	return <-p.first
}

// supervise runs the program again and again. It stays on one system thread: the kernel's
// "signal on the parent's death" looks at the thread that started the child.
func (p *process) supervise() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	backoff := firstBackoff
	for n := 0; ; n++ {
		began := time.Now()
		cmd, err := p.launch()
		if n == 0 {
			p.first <- err
			if err != nil {
				return
			}
		}
		if err == nil {
			err = cmd.Wait()
			p.ended()
		}
		p.mu.Lock()
		stopping := p.stopping
		p.mu.Unlock()
		if stopping {
			return
		}
		if time.Since(began) > livesLong {
			backoff = firstBackoff
		}
		p.say("%s ended (%s); it is started again in %v; its log is %s", p.name, ending(err), backoff, p.log)
		select {
		case <-time.After(backoff):
		case <-p.wake:
			return
		}
		backoff = min(2*backoff, maxBackoff)
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

func (p *process) launch() (*exec.Cmd, error) {
	out, err := os.OpenFile(p.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir = p.dir
	cmd.Stdout, cmd.Stderr = out, out
	// A process group of its own, so that Ctrl-C reaches us only and the order of the drain is ours; and a
	// drain if we are killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return nil, errors.New("stopped")
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.running = cmd.Process
	if err := os.WriteFile(p.pidFile, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		p.say("%s: %v", p.name, err)
	}
	return cmd, nil
}

func (p *process) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = nil
	os.Remove(p.pidFile)
}

// stop ends the program: first by its signal, after its grace by SIGKILL.
func (p *process) stop(ctx context.Context) {
	if p.done == nil {
		return
	}
	p.mu.Lock()
	if !p.stopping {
		p.stopping = true
		close(p.wake)
	}
	p.signal(p.stopBy)
	p.mu.Unlock()
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-timer.C:
		p.say("%s did not end within %v: it is killed", p.name, p.grace)
	case <-ctx.Done():
		p.say("%s is killed", p.name)
	}
	p.mu.Lock()
	p.signal(syscall.SIGKILL)
	p.mu.Unlock()
	<-p.done
}

// signal needs the lock. os.Process knows when its process has been waited for, so that no other
// process can get the signal.
func (p *process) signal(s syscall.Signal) {
	if p.running != nil {
		_ = p.running.Signal(s)
	}
}

// alive returns the process id (0 while the program is down) and how often it was started again.
func (p *process) alive() (pid, restarts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		pid = p.running.Pid
	}
	return pid, p.restarts
}

func ending(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "exit code 0"
	case errors.As(err, &exit):
		return exit.ProcessState.String()
	default:
		return fmt.Sprint(err)
	}
}
