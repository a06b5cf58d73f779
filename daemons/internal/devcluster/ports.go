package devcluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The ports. Everything listens on 127.0.0.1.
//
//	base + well-known port          the service, at the balancer (20143: IMAP)
//	base + 1000*k + well-known      server k of a role alone, through the balancer (21143: IMAP of box1)
//	base + 1000*k + well-known + 1  the server itself, where it demands a PROXY header (21144)
//	base + 1000 + 100 + ...         the same for the third server of a role, base + 2000 + 100 for the fourth
//	base + 1000*k + 800 ...         what has no well-known port: management, control, hints
const (
	host = "127.0.0.1"

	portLMTP        = 24
	portRelay       = 28 // no well-known port; between switches and boxes only
	portSMTP        = 25
	portPOP         = 110
	portIMAP        = 143
	portSieve       = 190 // 4190 would lie beyond the ports of a base
	portLDAP        = 389
	portSubmissions = 465
	portSubmission  = 587
	portLDAPS       = 636
	portIMAPS       = 993
	portPOPS        = 995

	portHint       = 830 // + place of the role
	portManagement = 800 // + place of the role
	portControl    = 810 // + place of the role

	// DefaultPortBase gives 20025 for SMTP, 20143 for IMAP.
	DefaultPortBase = 20000
	// The highest port is base+2999, and must stay below where Linux takes the ports of outgoing
	// connections from (32768): such a connection could sit on a port of ours.
	minPortBase = 1024
	maxPortBase = 32767 - 2999
)

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// front is where the balancer serves a well-known port for everybody.
func (l Layout) front(port int) string { return address(l.PortBase + port) }

// alone is where the balancer serves one server only.
func (l Layout) alone(s server, port int) string { return address(l.portBase(s) + port) }

// portBase is where the ports of a server begin.
func (l Layout) portBase(s server) int {
	k := s.index - 1
	return l.PortBase + 1000*(k%2+1) + 100*(k/2)
}

// own is where a server listens itself.
func (l Layout) own(s server, port int) string {
	base := l.portBase(s)
	if port == portManagement || port == portControl || port == portHint {
		return address(base + port + s.place())
	}
	for _, f := range frontends {
		if f.port == port && f.proxy {
			return address(base + port + 1)
		}
	}
	return address(base + port)
}

// listeners is every address that the service is going to bind, by what it is for.
func (l Layout) listeners() map[string]string {
	all := map[string]string{}
	for _, f := range frontends {
		all["the balancer's "+f.title] = l.front(f.port)
		for _, s := range fleet {
			if s.role != f.role {
				continue
			}
			all[s.name+"'s "+f.title] = l.own(s, f.port)
			if f.proxy {
				all[s.name+"'s "+f.title+" at the balancer"] = l.alone(s, f.port)
			}
		}
	}
	for _, s := range fleet {
		all[s.name+"'s management"] = l.own(s, portManagement)
		all[s.name+"'s control API"] = l.own(s, portControl)
		if s.role == roleBox || s.role == roleSwitch {
			all[s.name+"'s hints"] = l.own(s, portHint)
		}
	}
	return all
}

// checkPorts tries to bind each address once. The error names each one that is taken, and by which
// process where that can be seen.
func (l Layout) checkPorts() error {
	var taken []string
	for what, addr := range l.listeners() {
		listener, err := net.Listen("tcp", addr)
		if err == nil {
			listener.Close()
			continue
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%s cannot listen on %s: %w", what, addr, err)
		}
		line := fmt.Sprintf("  %s, wanted for %s", addr, what)
		if owner := portOwner(addr); owner != "" {
			line += ", is held by " + owner
		}
		taken = append(taken, line)
	}
	if len(taken) == 0 {
		return nil
	}
	return fmt.Errorf("these ports are in use:\n%s\nstop what holds them, or take other ports with a free base: SHOAL_PORT_BASE=%d make up",
		strings.Join(sorted(taken), "\n"), l.otherBase())
}

// otherBase proposes a base whose ports do not touch ours.
func (l Layout) otherBase() int {
	if other := l.PortBase + 3000; other <= maxPortBase {
		return other
	}
	return l.PortBase - 3000
}

// portOwner finds the process that listens on a port: the socket's inode in /proc/net/tcp, then the
// process that has it open. It returns "" where it may not look.
func portOwner(addr string) string {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return ""
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	const listening = "0A"
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[3] != listening || !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		link := "socket:[" + fields[9] + "]"
		open, err := filepath.Glob("/proc/[0-9]*/fd/*")
		if err != nil {
			return ""
		}
		for _, fd := range open {
			if target, err := os.Readlink(fd); err == nil && target == link {
				pid := strings.Split(fd, "/")[2]
				name, _ := os.ReadFile("/proc/" + pid + "/comm")
				return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
			}
		}
	}
	return ""
}
