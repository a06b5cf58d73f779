package kit

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"

	"shoal/daemons/internal/conf"
)

// bindAll takes the sockets handed over by systemd and binds the listeners of the configuration that are
// not among them, before root is given up. Names of sockets that no listener has are an error: a unit
// file and the configuration disagree.
func bindAll(env *Env, listeners []conf.Listener) error {
	inherited, err := activation.ListenersWithNames()
	if err != nil {
		return fmt.Errorf("sockets from systemd: %w", err)
	}
	env.prebound = map[string]net.Listener{}
	for name, all := range inherited {
		if len(all) == 1 {
			env.prebound[name] = all[0]
		} else {
			env.prebound[name] = newMerged(all)
		}
	}
	env.OnClose("listeners that nobody took", func() error {
		var all []error
		for _, l := range env.prebound {
			all = append(all, l.Close())
		}
		return errors.Join(all...)
	})
	for name := range inherited {
		if !slices.ContainsFunc(listeners, func(l conf.Listener) bool { return l.Name == name }) {
			return fmt.Errorf("systemd handed over a socket named %q, but the configuration has no such listener: set FileDescriptorName= in the socket unit to one of its labels", name)
		}
	}
	for _, l := range listeners {
		if have, ok := env.prebound[l.Name]; ok {
			env.Log.Info("listening", "listener", l.Name, "address", have.Addr().String(), "from", "systemd")
			continue
		}
		bound, err := bind(l.Name, l.Address)
		if err != nil {
			return err
		}
		env.prebound[l.Name] = bound
		env.Log.Info("listening", "listener", l.Name, "address", bound.Addr().String())
	}
	return nil
}

// merged accepts from several sockets: systemd may hand over one per address family under one name.
type merged struct {
	all   []net.Listener
	conns chan net.Conn
	errs  chan error
	done  chan struct{}
	once  sync.Once
}

func newMerged(all []net.Listener) *merged {
	m := &merged{all: all, conns: make(chan net.Conn), errs: make(chan error), done: make(chan struct{})}
	for _, l := range all {
		go m.accept(l)
	}
	return m
}

func (m *merged) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			select {
			case m.errs <- err:
			case <-m.done:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		select {
		case m.conns <- c:
		case <-m.done:
			c.Close()
			return
		}
	}
}

func (m *merged) Accept() (net.Conn, error) {
	select {
	case <-m.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: m.Addr(), Err: net.ErrClosed}
	case c := <-m.conns:
		return c, nil
	case err := <-m.errs:
		return nil, err
	}
}

func (m *merged) Close() error {
	m.once.Do(func() { close(m.done) })
	var all []error
	for _, l := range m.all {
		all = append(all, l.Close())
	}
	return errors.Join(all...)
}

func (m *merged) Addr() net.Addr { return m.all[0].Addr() }

// owner says who holds a listening address, as far as /proc tells: " by haproxy (process 812)".
func owner(address string) string {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return ""
	}
	inodes := append(listening("/proc/net/tcp", uint16(port)), listening("/proc/net/tcp6", uint16(port))...)
	if len(inodes) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // only a malformed pattern fails
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !slices.Contains(inodes, target) {
			continue
		}
		pid := strings.Split(link, "/")[2]
		if pid == strconv.Itoa(os.Getpid()) {
			return " by another listener of this daemon"
		}
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf(" by %s (process %s)", strings.TrimSpace(string(name)), pid)
	}
	return " by another program"
}

// listening lists the sockets that listen on a port, as /proc/<pid>/fd names them. A line of the table is
// "sl local_address rem_address st ... inode", addresses in hex as ADDRESS:PORT; state 0A is LISTEN.
func listening(table string, port uint16) []string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	var inodes []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 10 || fields[3] != "0A" {
			continue
		}
		_, p, ok := strings.Cut(fields[1], ":")
		b, err := hex.DecodeString(p)
		if ok && err == nil && len(b) == 2 && uint16(b[0])<<8|uint16(b[1]) == port {
			inodes = append(inodes, "socket:["+fields[9]+"]")
		}
	}
	return inodes
}

// isLoopback reports whether a listener can be reached from this machine only.
func isLoopback(l net.Listener) bool {
	if m, ok := l.(*merged); ok {
		return !slices.ContainsFunc(m.all, func(l net.Listener) bool { return !isLoopback(l) })
	}
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return false
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	return ok && ip.Unmap().IsLoopback()
}
