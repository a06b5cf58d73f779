// Hold mounts a file system on a disk of package disk and runs a command beside it:
//
//	hold ext4 /mount/point command argument ...
//
// At SIGUSR1 the disk stops to answer, at SIGUSR2 it goes on, at SIGTERM the command is ended. To be started in a mount namespace
// of its own (unshare --mount).
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"shoal/tests/disk"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hold:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: hold ext4|xfs directory command [argument]")
	}
	fs, dir := args[0], args[1]
	file := dir + ".disk"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	d, err := disk.New(file, fs, 320<<20)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Mount(dir); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT)
	c := exec.Command(args[2], args[3:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGUSR1:
				d.Hang(true)
				fmt.Fprintln(os.Stderr, "hold: the disk does not answer")
			case syscall.SIGUSR2:
				d.Hang(false)
				fmt.Fprintln(os.Stderr, "hold: the disk answers")
			default:
				d.Hang(false)
				_ = c.Process.Signal(syscall.SIGTERM)
			}
		case err := <-ended:
			return err
		}
	}
}
