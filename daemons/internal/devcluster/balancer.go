package devcluster

import (
	"bufio"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const balancerName = "lb1"

// Balancer speaks to HAProxy's runtime socket. One command, one connection; nothing is kept.
type Balancer struct{ Socket string }

// BackendServer is one server as HAProxy sees it.
type BackendServer struct {
	Backend  string `json:"backend"`
	Name     string `json:"name"`
	Address  string `json:"address"`
	Status   string `json:"status"` // "UP", "DOWN", "UP 1/2", "no check", "MAINT", "DRAIN" ...
	Check    string `json:"check"`  // result of the last check: "L7OK", "L4CON" ...
	Sessions int    `json:"sessions"`
}

// Up says whether the server gets connections.
func (s BackendServer) Up() bool {
	return strings.HasPrefix(s.Status, "UP") || s.Status == "no check"
}

// Servers lists the servers of all backends.
func (b Balancer) Servers(ctx context.Context) ([]BackendServer, error) {
	answer, err := b.command(ctx, "show stat -1 4 -1") // type 4: servers
	if err != nil {
		return nil, err
	}
	rows := csv.NewReader(strings.NewReader(strings.TrimPrefix(answer, "# ")))
	rows.FieldsPerRecord = -1
	head, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("balancer's statistics: %w", err)
	}
	column := map[string]int{}
	for i, name := range head {
		column[name] = i
	}
	var all []BackendServer
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("balancer's statistics: %w", err)
		}
		get := func(name string) string {
			if i, ok := column[name]; ok && i < len(row) {
				return row[i]
			}
			return ""
		}
		sessions, _ := strconv.Atoi(get("scur"))
		all = append(all, BackendServer{
			Backend: get("pxname"), Name: get("svname"), Address: get("addr"),
			Status: get("status"), Check: get("check_status"), Sessions: sessions,
		})
	}
}

// disableFrontend makes the balancer accept no more connections there; those that are open go on.
func (b Balancer) disableFrontend(ctx context.Context, name string) error {
	answer, err := b.command(ctx, "disable frontend "+name)
	if err == nil && strings.TrimSpace(answer) != "" {
		return fmt.Errorf("disable frontend %s: %s", name, strings.TrimSpace(answer))
	}
	return err
}

// maxAnswer bounds what HAProxy may answer, in bytes.
const maxAnswer = 8 << 20

func (b Balancer) command(ctx context.Context, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := dialUnix(ctx, b.Socket)
	if err != nil {
		return "", fmt.Errorf("balancer does not answer at its socket %s: %w", b.Socket, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if _, err := conn.Write([]byte(line + "\n")); err != nil {
		return "", fmt.Errorf("balancer: %s: %w", line, err)
	}
	answer, err := io.ReadAll(io.LimitReader(bufio.NewReader(conn), maxAnswer))
	if err != nil {
		return "", fmt.Errorf("balancer: %s: %w", line, err)
	}
	return string(answer), nil
}

// dialUnix reaches sockets whose path is longer than the 107 bytes that the kernel takes, by way of the
// folder's descriptor.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= 107 {
		return d.DialContext(ctx, "unix", path)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path)))
}
