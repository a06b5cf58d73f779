package provider

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	dschema "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	eschema "github.com/hashicorp/terraform-plugin-framework/ephemeral/schema"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	pschema "github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	rschema "github.com/hashicorp/terraform-plugin-framework/resource/schema"
)

// attribute is what all kinds of schemas have in common.
type attribute interface {
	GetMarkdownDescription() string
	IsRequired() bool
	IsOptional() bool
	IsComputed() bool
	IsSensitive() bool
	IsWriteOnly() bool
}

// WriteDocs writes the reference of everything in the provider, made from the schemas, as docs/ of a provider lies: index.md,
// resources/, data-sources/, ephemeral-resources/.
func WriteDocs(folder string) error {
	ctx := context.Background()
	p := &shoalProvider{}
	var ps provider.SchemaResponse
	p.Schema(ctx, provider.SchemaRequest{}, &ps)
	pages := map[string]string{"index.md": page("shoal", ps.Schema.MarkdownDescription, rows(ps.Schema.Attributes, ""))}
	for _, f := range p.Resources(ctx) {
		r := f()
		var m resource.MetadataResponse
		var s resource.SchemaResponse
		r.Metadata(ctx, resource.MetadataRequest{ProviderTypeName: "shoal"}, &m)
		r.Schema(ctx, resource.SchemaRequest{}, &s)
		pages["resources/"+short(m.TypeName)] = page(m.TypeName, s.Schema.MarkdownDescription, rows(s.Schema.Attributes, ""))
	}
	for _, f := range p.DataSources(ctx) {
		r := f()
		var m datasource.MetadataResponse
		var s datasource.SchemaResponse
		r.Metadata(ctx, datasource.MetadataRequest{ProviderTypeName: "shoal"}, &m)
		r.Schema(ctx, datasource.SchemaRequest{}, &s)
		pages["data-sources/"+short(m.TypeName)] = page("data "+m.TypeName, s.Schema.MarkdownDescription, rows(s.Schema.Attributes, ""))
	}
	for _, f := range p.EphemeralResources(ctx) {
		r := f()
		var m ephemeral.MetadataResponse
		var s ephemeral.SchemaResponse
		r.Metadata(ctx, ephemeral.MetadataRequest{ProviderTypeName: "shoal"}, &m)
		r.Schema(ctx, ephemeral.SchemaRequest{}, &s)
		pages["ephemeral-resources/"+short(m.TypeName)] = page("ephemeral "+m.TypeName, s.Schema.MarkdownDescription, rows(s.Schema.Attributes, ""))
	}
	for name, text := range pages {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func short(name string) string { return strings.TrimPrefix(name, "shoal_") + ".md" }

func page(title, text string, rows []string) string {
	return "# " + title + "\n\n" + text + "\n\n| Attribute | | Meaning |\n|---|---|---|\n" + strings.Join(rows, "\n") + "\n\nMade from the schema by `make terraform-docs`.\n"
}

func rows[A attribute](all map[string]A, prefix string) []string {
	var names []string
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	var out []string
	for _, n := range names {
		a := all[n]
		var kind []string
		for _, k := range []struct {
			is   bool
			word string
		}{{a.IsRequired(), "required"}, {a.IsOptional(), "optional"}, {a.IsComputed() && !a.IsOptional(), "told"}, {a.IsWriteOnly(), "write-only"}, {a.IsSensitive() && !a.IsWriteOnly(), "sensitive"}} {
			if k.is {
				kind = append(kind, k.word)
			}
		}
		out = append(out, fmt.Sprintf("| `%s%s` | %s | %s |", prefix, n, strings.Join(kind, ", "), a.GetMarkdownDescription()))
		switch nested := any(a).(type) {
		case pschema.SingleNestedAttribute:
			out = append(out, rows(nested.Attributes, prefix+n+".")...)
		case rschema.SingleNestedAttribute:
			out = append(out, rows(nested.Attributes, prefix+n+".")...)
		case rschema.ListNestedAttribute:
			out = append(out, rows(nested.NestedObject.Attributes, prefix+n+"[].")...)
		case dschema.ListNestedAttribute:
			out = append(out, rows(nested.NestedObject.Attributes, prefix+n+"[].")...)
		case dschema.MapNestedAttribute:
			out = append(out, rows(nested.NestedObject.Attributes, prefix+n+"{}.")...)
		}
	}
	return out
}

var _ = eschema.StringAttribute{} // the kinds of schemas that have no nested attributes here
