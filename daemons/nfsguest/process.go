package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"

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
