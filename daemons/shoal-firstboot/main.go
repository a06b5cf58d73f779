// Command shoal-firstboot takes up a machine's seed. See shoal-firstboot(8) and docs/images.md.
package main

import (
	"os"

	"shoal/daemons/internal/firstboot"
)

func main() { os.Exit(firstboot.Main(os.Args[1:])) }
