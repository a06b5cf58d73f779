// Package ports gives tests loopback ports that stay free until the test binds them.
//
// To listen on port 0, close, and use the number later is a race: it lies in the range from which Linux takes
// the ports of outgoing connections, so any other test may sit on it by then. The ports of this package lie
// below that range, and above those of the clusters that tests start (tests/cluster). They come in blocks; a
// process owns a block while it listens on the block's first port, so that test programs that run at the same
// time never give out the same port, and a program that is killed gives its blocks back.
package ports

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
)

const (
	// First and Last are the ports that may be given out, both inclusive.
	First = 30000
	Last  = 32759

	perBlock = 40 // the first is the guard
	blocks   = (Last - First + 1) / perBlock
)

var pool struct {
	sync.Mutex
	guards map[int]net.Listener // by block
	free   []int
}

// Take gives n different loopback addresses (host:port) to the test, until it ends.
func Take(t testing.TB, n int) []string {
	t.Helper()
	taken, release, err := Reserve(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return taken
}

// One is Take for a single address.
func One(t testing.TB) string {
	t.Helper()
	return Take(t, 1)[0]
}

// Reserve is Take outside of tests. release gives the addresses back; it may be called once.
func Reserve(n int) (taken []string, release func(), err error) {
	pool.Lock()
	defer pool.Unlock()
	var numbers []int
	release = func() {
		pool.Lock()
		defer pool.Unlock()
		pool.free = append(pool.free, numbers...)
	}
	for len(numbers) < n {
		if len(pool.free) == 0 {
			if err := claim(); err != nil {
				pool.free = append(pool.free, numbers...)
				return nil, nil, err
			}
		}
		port := pool.free[0]
		pool.free = pool.free[1:]
		if l, err := net.Listen("tcp", address(port)); err == nil { // else somebody who does not know of the guards has it
			l.Close()
			numbers = append(numbers, port)
			taken = append(taken, address(port))
		}
	}
	return taken, release, nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// claim adds one more block to the pool. Processes begin at different blocks.
func claim() error {
	if pool.guards == nil {
		pool.guards = map[int]net.Listener{}
	}
	for i := range blocks {
		block := (os.Getpid() + i) % blocks
		if pool.guards[block] != nil {
			continue
		}
		base := First + block*perBlock
		guard, err := net.Listen("tcp", address(base))
		if err != nil {
			continue
		}
		pool.guards[block] = guard
		for port := base + 1; port < base+perBlock; port++ {
			pool.free = append(pool.free, port)
		}
		return nil
	}
	return fmt.Errorf("no free ports between %d and %d: %w", First, Last, errors.New("each block of them has an owner"))
}
