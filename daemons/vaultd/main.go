// Command vaultd serves the directory. See vaultd -help and docs/configuration.md.
package main

import (
	"os"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/vaultd"
)

func main() { os.Exit(kit.Main(vaultd.Spec())) }
