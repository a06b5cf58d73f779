package imapsession

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller tells when parked connections become readable, for all connections of a server with one
// goroutine. A connection that waits here has no goroutine, no stack and no buffer of its own.
//
// Each connection is armed for one event at a time (EPOLLONESHOT), so that it costs nothing while its
// session runs. The epoll descriptor itself waits in the runtime's poller and holds no thread.
//
// A descriptor number may be used again after its connection was closed; an event that was on its way
// then wakes the new connection, which looks, finds nothing to read, and parks again.
type poller struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	done chan struct{}

	mu    sync.Mutex
	conns []*session // by descriptor number
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll descriptor: %w", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, done: make(chan struct{})}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("epoll descriptor: %w", err)
	}
	return p, nil
}

// run hands the sessions whose connections have become readable to wake, until close is called.
func (p *poller) run(wake func(*session)) {
	defer close(p.done)
	events := make([]unix.EpollEvent, 256)
	ready := make([]*session, 0, len(events))
	for {
		n := 0
		var failed error
		err := p.raw.Read(func(fd uintptr) bool {
			n, failed = unix.EpollWait(int(fd), events, 0)
			return n != 0
		})
		if err != nil {
			return // closed
		}
		if failed == unix.EINTR {
			continue
		}
		if failed != nil {
			return
		}
		p.mu.Lock()
		for _, ev := range events[:n] {
			if fd := int(ev.Fd); fd < len(p.conns) && p.conns[fd] != nil {
				ready = append(ready, p.conns[fd])
			}
		}
		p.mu.Unlock()
		for i, s := range ready {
			wake(s)
			ready[i] = nil
		}
		ready = ready[:0]
	}
}

// add makes the descriptor fd known for s, without arming it.
func (p *poller) add(fd int, s *session) error {
	p.mu.Lock()
	for len(p.conns) <= fd {
		p.conns = append(p.conns, make([]*session, max(64, len(p.conns)))...)
	}
	p.conns[fd] = s
	p.mu.Unlock()
	ev := unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(fd)}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// arm asks for one event on fd: bytes to read, or the end of the connection.
func (p *poller) arm(fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// remove forgets fd. It must be called before the descriptor is closed.
func (p *poller) remove(fd int) {
	p.mu.Lock()
	if fd < len(p.conns) {
		p.conns[fd] = nil
	}
	p.mu.Unlock()
	// The kernel would do this at close too; done here, no event can be on its way any more.
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil)
}

func (p *poller) close() {
	p.file.Close()
	<-p.done
}
