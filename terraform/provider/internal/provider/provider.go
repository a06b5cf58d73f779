// Package provider is the Terraform provider of Shoal: its configuration, resources, data sources and ephemeral resources.
//
// One file per resource (x_resource.go or the file of its kind). What lies on a balancer or a storage server is asked of
// shoal-agent there; servers, domains and keys are entries of the directory; machines and images are libvirt's.
//
// Invariants: no private key, password or token is in the state, in a plan or in a message (they are made where they are
// used, or come in as write-only attributes); what was made is in the state before anything is waited for; what can be known to
// be wrong is refused when the plan is made.
package provider

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"shoal/terraform/provider/internal/shoal"
)

// New makes the provider.
func New(version string) func() provider.Provider {
	return func() provider.Provider { return &shoalProvider{version: version} }
}

type shoalProvider struct{ version string }

type providerModel struct {
	Operator  *operatorModel  `tfsdk:"operator"`
	Directory *directoryModel `tfsdk:"directory"`
	Libvirt   *libvirtModel   `tfsdk:"libvirt"`
}

type operatorModel struct {
	CertFile types.String `tfsdk:"cert_file"`
	KeyFile  types.String `tfsdk:"key_file"`
	CAFile   types.String `tfsdk:"ca_file"`
}

type directoryModel struct {
	URIs         []types.String `tfsdk:"uris"`
	BindDN       types.String   `tfsdk:"bind_dn"`
	PasswordFile types.String   `tfsdk:"password_file"`
	Suffix       types.String   `tfsdk:"suffix"`
}

type libvirtModel struct {
	URI types.String `tfsdk:"uri"`
}

// clients is what the resources get. Each part is nil until it is configured, and made on its first use.
type clients struct {
	agents    func() (*shoal.Agents, error)
	directory func() (*shoal.Directory, error)
	libvirt   func() (*hypervisor, error)

	rolls rolls
}

func (p *shoalProvider) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName, resp.Version = "shoal", p.version
}

func (p *shoalProvider) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "Looks after a Shoal messaging service: its machines, balancers, storage and directory. Each block is needed only by the resources that use it.",
		Attributes: map[string]schema.Attribute{
			"operator": schema.SingleNestedAttribute{Optional: true,
				MarkdownDescription: "The operator's certificate (`shoalctl ca issue operator NAME`), by which agents and the directory are spoken to.",
				Attributes: map[string]schema.Attribute{
					"cert_file": schema.StringAttribute{Required: true, MarkdownDescription: "File of the certificate."},
					"key_file":  schema.StringAttribute{Required: true, MarkdownDescription: "File of its key."},
					"ca_file":   schema.StringAttribute{Required: true, MarkdownDescription: "File of the internal CA's certificate."},
				}},
			"directory": schema.SingleNestedAttribute{Optional: true,
				MarkdownDescription: "The directory's master, for `shoal_server`, `shoal_domain`, `shoal_dkim_key`, `shoal_directory_shadow` and tokens of enrolment.",
				Attributes: map[string]schema.Attribute{
					"uris":          schema.ListAttribute{Required: true, ElementType: types.StringType, MarkdownDescription: "`ldaps://host:port`, or `ldap://host:port` with StartTLS; tried in order."},
					"bind_dn":       schema.StringAttribute{Optional: true, MarkdownDescription: "Whom to bind as; `cn=admin` below the suffix if not given."},
					"password_file": schema.StringAttribute{Required: true, MarkdownDescription: "File with the password: one line."},
					"suffix":        schema.StringAttribute{Optional: true, MarkdownDescription: "Suffix of the directory; `o=shoal` if not given."},
				}},
			"libvirt": schema.SingleNestedAttribute{Optional: true,
				MarkdownDescription: "The hypervisor, for `shoal_image` and `shoal_machine`.",
				Attributes: map[string]schema.Attribute{
					"uri": schema.StringAttribute{Required: true, MarkdownDescription: "libvirt's URI: `qemu:///system`, or with another socket `qemu:///system?socket=/path`."},
				}},
		},
	}
}

func (p *shoalProvider) Configure(ctx context.Context, req provider.ConfigureRequest, resp *provider.ConfigureResponse) {
	var m providerModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	operator := func() (shoal.Operator, error) {
		if m.Operator == nil {
			return shoal.Operator{}, fmt.Errorf("the provider has no operator block: it names the certificate to use")
		}
		return shoal.Operator{CertFile: m.Operator.CertFile.ValueString(), KeyFile: m.Operator.KeyFile.ValueString(), CAFile: m.Operator.CAFile.ValueString()}, nil
	}
	c := &clients{}
	c.agents = sync.OnceValues(func() (*shoal.Agents, error) {
		o, err := operator()
		if err != nil {
			return nil, err
		}
		return shoal.NewAgents(o)
	})
	c.directory = sync.OnceValues(func() (*shoal.Directory, error) {
		if m.Directory == nil {
			return nil, fmt.Errorf("the provider has no directory block: it names the directory's master")
		}
		o, err := operator()
		if err != nil {
			return nil, err
		}
		config, err := o.TLS("vault")
		if err != nil {
			return nil, err
		}
		b, err := os.ReadFile(m.Directory.PasswordFile.ValueString())
		if err != nil {
			return nil, fmt.Errorf("the directory's password: %w", err)
		}
		d := &shoal.Directory{DN: m.Directory.BindDN.ValueString(), Password: strings.TrimRight(string(b), "\r\n"), Suffix: m.Directory.Suffix.ValueString(), TLS: config}
		for _, u := range m.Directory.URIs {
			d.URIs = append(d.URIs, u.ValueString())
		}
		if d.Suffix == "" {
			d.Suffix = "o=shoal"
		}
		if d.DN == "" {
			d.DN = "cn=admin," + d.Suffix
		}
		return d, nil
	})
	c.libvirt = sync.OnceValues(func() (*hypervisor, error) {
		if m.Libvirt == nil {
			return nil, fmt.Errorf("the provider has no libvirt block: it names the hypervisor")
		}
		return dialHypervisor(m.Libvirt.URI.ValueString())
	})
	resp.ResourceData, resp.DataSourceData, resp.EphemeralResourceData = c, c, c
	if m.Operator != nil && m.Operator.CertFile.ValueString() == "" && !m.Operator.CertFile.IsUnknown() {
		resp.Diagnostics.AddAttributeError(path.Root("operator").AtName("cert_file"), "empty file name", "Name the file of the operator's certificate.")
	}
}

func (p *shoalProvider) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{
		newLBPool, newLBMember, newNFSVolume, newNFSPolicy, newNFSRule,
		newServer, newDomain, newDkimKey, newShadow, newImage, newMachine,
	}
}

func (p *shoalProvider) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{newAgentData, newServersData, newVolumeData, newPoolData}
}

func (p *shoalProvider) EphemeralResources(context.Context) []func() ephemeral.EphemeralResource {
	return []func() ephemeral.EphemeralResource{newEnrolToken}
}
