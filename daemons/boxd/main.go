// Command boxd serves mailboxes. See boxd -help and docs/configuration.md.
package main

import (
	"os"

	"shoal/daemons/internal/boxd"
	"shoal/daemons/internal/kit"
)

func main() { os.Exit(kit.Main(boxd.Spec())) }
