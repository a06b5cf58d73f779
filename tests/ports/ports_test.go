package ports

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

const childEnv = "SHOAL_TEST_PORTS_CHILD"

// Two programs that take ports at the same time, more than a block each, get different ones, all of which can
// be bound, below the range of outgoing connections.
func TestProgramsGetDifferentPorts(t *testing.T) {
	const n = 2 * perBlock
	if os.Getenv(childEnv) != "" {
		taken := Take(t, n)
		os.Stdout.WriteString(strings.Join(taken, " ") + "\n")
		var b [1]byte
		os.Stdin.Read(b[:]) // until the parent has seen enough
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestProgramsGetDifferentPorts$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	buf := make([]byte, n*len("127.0.0.1:30000 "))
	got := 0
	for !strings.Contains(string(buf[:got]), "\n") {
		m, err := out.Read(buf[got:])
		if err != nil {
			t.Fatal(err)
		}
		got += m
	}
	seen := map[string]bool{}
	for _, a := range append(strings.Fields(string(buf[:got])), Take(t, n)...) {
		_, port, err := net.SplitHostPort(a)
		if err != nil {
			t.Fatal(err)
		}
		if number, _ := strconv.Atoi(port); seen[a] || number < First || number > Last {
			t.Errorf("%s: twice, or out of range", a)
		}
		seen[a] = true
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if len(seen) != 2*n {
		t.Errorf("%d addresses, want %d", len(seen), 2*n)
	}
}

func TestPortsComeBack(t *testing.T) {
	before := len(pool.guards)
	for range 20 * perBlock {
		_, release, err := Reserve(1)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	if n := len(pool.guards) - before; n > 1 {
		t.Errorf("%d blocks for one port at a time", n)
	}
	if _, _, err := Reserve(Last); err == nil || !strings.Contains(err.Error(), "owner") {
		t.Errorf("more ports than there are: %v", err)
	}
}
