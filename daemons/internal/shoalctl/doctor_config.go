package shoalctl

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// daemonConfig is what doctor reads of a daemon's configuration file: not all of it, and of every role the same. The
// daemons themselves check the rest (-check).
type daemonConfig struct {
	file   string
	server string // its name
	blocks []configBlock
}

// configBlock is a block with its simple attributes.
type configBlock struct {
	kind, label string
	attributes  map[string]string
	numbers     map[string]int64
}

func (c *daemonConfig) all(kind string) []configBlock {
	return slices.DeleteFunc(slices.Clone(c.blocks), func(b configBlock) bool { return b.kind != kind })
}

// readDaemonConfig reads a file. Attributes that are no plain texts or numbers are left out.
func readDaemonConfig(file string) (*daemonConfig, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	parsed, diags := hclsyntax.ParseConfig(src, file, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, fmt.Errorf("%s: %w", file, diags)
	}
	c := &daemonConfig{file: file}
	for _, block := range parsed.Body.(*hclsyntax.Body).Blocks {
		b := configBlock{kind: block.Type, attributes: map[string]string{}, numbers: map[string]int64{}}
		if len(block.Labels) > 0 {
			b.label = block.Labels[0]
		}
		for name, attribute := range block.Body.Attributes {
			value, diags := attribute.Expr.Value(nil)
			if diags.HasErrors() || value.IsNull() || !value.IsKnown() {
				continue
			}
			switch value.Type() {
			case cty.String:
				b.attributes[name] = value.AsString()
			case cty.Number:
				b.numbers[name], _ = value.AsBigFloat().Int64()
			}
		}
		if b.kind == "server" {
			c.server = b.attributes["name"]
		}
		c.blocks = append(c.blocks, b)
	}
	return c, nil
}

// path is a path of the file, which counts from its folder.
func (c *daemonConfig) path(value string) string {
	if value == "" || filepath.IsAbs(value) {
		return value
	}
	return filepath.Join(filepath.Dir(c.file), value)
}

// daemonConfigs finds the configurations of the daemons on this machine: those named, else those of the data
// folder, else those in /etc/shoal.
func (t *tool) daemonConfigs(named []string) (files []string, err error) {
	if len(named) > 0 {
		return named, nil
	}
	for _, data := range t.dataFolders() {
		if files, err = filepath.Glob(filepath.Join(data, "conf", "*.hcl")); err != nil || len(files) > 0 {
			return files, err
		}
	}
	for _, daemon := range []string{"switchd", "boxd", "vaultd"} {
		file := filepath.Join(filepath.Dir(systemConfig), daemon+".hcl")
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
		}
	}
	return files, nil
}
