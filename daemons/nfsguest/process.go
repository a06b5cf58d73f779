package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"shoal/daemons/internal/vfs"
	"shoal/daemons/nfsguest/proto"
)

// Stacks tells what each goroutine is doing.
func (g *Guest) Stacks(_ proto.None, out *[]byte) error {
	b := make([]byte, 1<<20)
	*out = b[:runtime.Stack(b, true)]
	return nil
}

// Run runs a command to its end and returns what it has printed.
func (g *Guest) Run(args []string, out *[]byte) error {
	c := exec.Command(args[0], args[1:]...)
	b, err := c.CombinedOutput()
	*out = b
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, b)
	}
	return nil
}

// Die ends this machine before the n-th file operation of the mortal store from now on, as a cut of its power does: nothing is
// flushed, nobody is told.
func (g *Guest) Die(n int, _ *proto.None) error {
	g.mu.Lock()
	f := g.fault
	g.mu.Unlock()
	if f == nil {
		return errors.New("the store is not a mortal one")
	}
	f.Reset()
	f.Hook(func(c vfs.Call) vfs.Action {
		if strings.Contains(c.Path, "/reserve/") { // files that are made once
			n++
		}
		if c.I >= n {
			fmt.Printf("%s file operation %d: %v\n", proto.Dies, c.I, c)
			_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		}
		return vfs.Action{}
	})
	return nil
}

// Spawn starts a command that is to stay. What it says goes to the console.
func (g *Guest) Spawn(args []string, _ *proto.None) error {
	c := exec.Command(args[0], args[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stdout
	if err := c.Start(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	go func() {
		err := c.Wait()
		g.log.Info("process ended", slog.String("command", args[0]), slog.Any("err", err))
	}()
	return nil
}
