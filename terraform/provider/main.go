// Command terraform-provider-shoal is the Terraform provider of the Shoal messaging service. Terraform and OpenTofu start
// it. With -docs FOLDER it writes the reference of its resources there, made from their schemas.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	"shoal/terraform/provider/internal/provider"
)

// version is set when the program is linked.
var version = "dev"

func main() {
	debug := flag.Bool("debug", false, "wait for a debugger's Terraform instead of being started by one")
	docs := flag.String("docs", "", "write the reference into this `folder` and exit")
	flag.Parse()
	err := run(*debug, *docs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "terraform-provider-shoal:", err)
		os.Exit(1)
	}
}

func run(debug bool, docs string) error {
	if docs != "" {
		return provider.WriteDocs(docs)
	}
	return providerserver.Serve(context.Background(), provider.New(version), providerserver.ServeOpts{
		Address: "registry.terraform.io/shoal/shoal", Debug: debug,
	})
}
