// Command shoalctl runs and looks after a Shoal messaging service. See package shoalctl.
package main

import (
	"os"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/shoalctl"
)

func main() {
	os.Exit(shoalctl.Main(os.Args[1:], kit.Version, os.Stdin, os.Stdout, os.Stderr))
}
