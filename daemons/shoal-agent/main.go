// Command shoal-agent does a fixed set of things for operators' tools on balancers, storage and directory machines.
// See shoal-agent -help and docs/terraform.md.
package main

import (
	"os"

	"shoal/daemons/internal/agent"
	"shoal/daemons/internal/kit"
)

func main() { os.Exit(kit.Main(agent.Spec())) }
