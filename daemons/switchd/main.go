// Command switchd takes mail in over SMTP. See switchd -help and docs/configuration.md.
package main

import (
	"os"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/switchd"
)

func main() { os.Exit(kit.Main(switchd.Spec())) }
