package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// maxTold bounds an answer of HAProxy, in bytes.
const maxTold = 8 << 20

// socket is one of HAProxy's Unix sockets: one command, one connection.
type socket struct {
	path    string
	timeout time.Duration
}

// command sends one line. HAProxy ends its answer by closing the connection.
func (s socket) command(ctx context.Context, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", s.path)
	if err != nil {
		return "", fmt.Errorf("haproxy does not answer at %s: %w", s.path, err)
	}
	defer c.Close()
	if t, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(t); err != nil {
			return "", err
		}
	}
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", fmt.Errorf("haproxy: %s: %w", line, err)
	}
	b, err := io.ReadAll(io.LimitReader(c, maxTold))
	if err != nil {
		return "", fmt.Errorf("haproxy: %s: %w", line, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// do is command for those that say nothing, or one of these texts, when they have done it.
func (s socket) do(ctx context.Context, line string, good ...string) error {
	told, err := s.command(ctx, line)
	if err != nil || told == "" {
		return err
	}
	for _, g := range good {
		if strings.Contains(told, g) {
			return nil
		}
	}
	return fmt.Errorf("haproxy refuses %q: %s", line, told)
}

// seen is a server as HAProxy has it.
type seen struct {
	address  string
	weight   int
	admin    int // bits of srv_admin_state; see the management guide, "show servers state"
	status   string
	sessions int
}

// Bits of srv_admin_state that matter here: maintenance that was asked for, drain that was asked for.
const (
	adminMaint = 0x01
	adminDrain = 0x08
)

func (s seen) state() string {
	switch {
	case s.admin&adminMaint != 0:
		return "maint"
	case s.admin&adminDrain != 0:
		return "drain"
	}
	return "ready"
}

// look reads all servers of all backends of ours. A backend without servers is there with an empty map.
func (s socket) look(ctx context.Context) (map[string]map[string]seen, error) {
	all := map[string]map[string]seen{}
	told, err := s.command(ctx, "show backend")
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Fields(told) {
		if pool, ours := strings.CutPrefix(name, backend); ours {
			all[pool] = map[string]seen{}
		}
	}
	if told, err = s.command(ctx, "show servers state"); err != nil {
		return nil, err
	}
	lines := strings.Split(told, "\n")
	if len(lines) < 2 || strings.TrimSpace(lines[0]) != "1" {
		return nil, errors.New("haproxy: the list of servers is not of format 1")
	}
	column := columns(strings.Fields(strings.TrimPrefix(lines[1], "#")))
	for _, l := range lines[2:] {
		f := strings.Fields(l)
		pool, ours := strings.CutPrefix(column.get(f, "be_name"), backend)
		if !ours || all[pool] == nil {
			continue
		}
		admin, _ := strconv.Atoi(column.get(f, "srv_admin_state"))
		weight, _ := strconv.Atoi(column.get(f, "srv_uweight"))
		all[pool][column.get(f, "srv_name")] = seen{
			address: joinHAProxy(column.get(f, "srv_addr"), column.get(f, "srv_port")), admin: admin, weight: weight,
		}
	}
	if told, err = s.command(ctx, "show stat -1 4 -1"); err != nil {
		return nil, err
	}
	lines = strings.Split(told, "\n")
	column = columns(strings.Split(strings.TrimPrefix(lines[0], "# "), ","))
	for _, l := range lines[1:] {
		f := strings.Split(l, ",")
		pool, ours := strings.CutPrefix(column.get(f, "pxname"), backend)
		name := column.get(f, "svname")
		v, known := all[pool][name]
		if !ours || !known {
			continue
		}
		v.status = column.get(f, "status")
		v.sessions, _ = strconv.Atoi(column.get(f, "scur"))
		all[pool][name] = v
	}
	return all, nil
}

// columns finds the fields of a table by their names.
type columns []string

func (c columns) get(fields []string, name string) string {
	for i, n := range c {
		if n == name && i < len(fields) {
			return fields[i]
		}
	}
	return ""
}
