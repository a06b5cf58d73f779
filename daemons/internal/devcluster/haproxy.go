package devcluster

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// findHAProxy looks where Debian puts it too, which is not on everybody's PATH.
func findHAProxy() (string, error) {
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy", "/usr/local/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("haproxy is not installed, and the service needs it in front of its servers: install it with apt-get install haproxy (as root), then try again")
}

// haproxyConfig is the balancer's configuration. Each service has a frontend for everybody, and one for each
// server that cannot be reached otherwise because it demands the PROXY header.
func (l Layout) haproxyConfig() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Written by shoalctl up at each start: changes are lost.")
	p("global")
	p("	stats socket unix@./haproxy.sock mode 600 level admin expose-fd listeners")
	p("	log stdout format raw local0 notice")
	p("	fd-hard-limit 65536")
	p("	hard-stop-after 10s")
	p("")
	p("defaults")
	p("	mode tcp")
	p("	log global")
	p("	option dontlognull")
	p("	option clitcpka")
	p("	option srvtcpka")
	p("	option redispatch")
	p("	retries 3")
	p("	timeout connect 5s")
	p("	timeout check 5s")
	p("	timeout queue 30s")
	p("	timeout client-fin 1m")
	p("	timeout server-fin 1m")
	p("	balance leastconn")
	p("	default-server inter 1s fall 2 rise 1")
	for _, f := range frontends {
		p("")
		p("frontend %s", f.name)
		p("	bind %s", l.front(f.port))
		p("	timeout client %s", f.idle)
		p("	default_backend be_%s", f.name)
		p("backend be_%s", f.name)
		p("	timeout server %s", f.idle)
		if f.check != "" {
			p("	%s", f.check)
		}
		for _, s := range of(f.role) {
			line := fmt.Sprintf("	server %s %s", s.name, l.own(s, f.port))
			if f.proxy {
				line += " send-proxy-v2"
			}
			switch {
			case f.track != "":
				line += fmt.Sprintf(" track be_%s/%s", f.track, s.name)
			case f.proxy:
				line += " check check-send-proxy"
			default:
				line += " check"
			}
			if s == master { // it has the updates to do; it helps out when no shadow is there
				line += " backup"
			}
			p("%s", line)
		}
		if !f.proxy {
			continue
		}
		for _, s := range of(f.role) {
			p("listen %s-%s", f.name, s.name)
			p("	bind %s", l.alone(s, f.port))
			p("	timeout client %s", f.idle)
			p("	timeout server %s", f.idle)
			p("	server %s %s send-proxy-v2", s.name, l.own(s, f.port))
		}
	}
	return b.String()
}

// checkHAProxy lets HAProxy read its configuration without starting.
func (l Layout) checkHAProxy(haproxy string) error {
	cmd := exec.Command(haproxy, "-c", "-f", l.haproxyConf())
	cmd.Dir = l.run()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("haproxy refuses %s: %w\n%s", l.haproxyConf(), err, strings.TrimSpace(string(out)))
	}
	return nil
}
