package provider

import (
	"context"
	"net/http"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// lookup is a data source: M is its model, read fills it.
type lookup[M any] struct {
	name   string
	scheme schema.Schema
	read   func(ctx context.Context, c *clients, m *M) diag.Diagnostics
	c      *clients
}

func (l *lookup[M]) Metadata(_ context.Context, req datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_" + l.name
}

func (l *lookup[M]) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = l.scheme
}

func (l *lookup[M]) Configure(_ context.Context, req datasource.ConfigureRequest, _ *datasource.ConfigureResponse) {
	l.c, _ = req.ProviderData.(*clients)
}

func (l *lookup[M]) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m M
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(l.read(ctx, l.c, &m)...)
	}
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
	}
}

func problem(what string, err error) diag.Diagnostics {
	return diag.Diagnostics{diag.NewErrorDiagnostic(what, err.Error())}
}

func given(text string) schema.Attribute {
	return schema.StringAttribute{Required: true, MarkdownDescription: text}
}

func answered(text string) schema.Attribute {
	return schema.StringAttribute{Computed: true, MarkdownDescription: text}
}

type agentDataModel struct {
	Agent    types.String `tfsdk:"agent"`
	Server   types.String `tfsdk:"server"`
	API      types.String `tfsdk:"api"`
	Version  types.String `tfsdk:"version"`
	Parts    types.List   `tfsdk:"parts"`
	Software types.Map    `tfsdk:"software"`
}

func newAgentData() datasource.DataSource {
	return &lookup[agentDataModel]{name: "agent", scheme: schema.Schema{
		MarkdownDescription: "What an agent is and looks after.",
		Attributes: map[string]schema.Attribute{
			"agent": given("The agent: `host:port` of its API."), "server": answered("Name of its server."),
			"api": answered("Version of its API."), "version": answered("Version of the agent."),
			"parts":    schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "`haproxy`, `exports`, `enrolment`."},
			"software": schema.MapAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Versions of what it looks after."},
		}},
		read: func(ctx context.Context, c *clients, m *agentDataModel) (diags diag.Diagnostics) {
			a, err := c.agents()
			var j struct {
				API, Version, Server string
				Parts                []string
				Software             map[string]string
			}
			if err == nil {
				_, err = a.Do(ctx, m.Agent.ValueString(), http.MethodGet, "/v1/agent", nil, &j)
			}
			if err != nil {
				return problem("cannot read the agent", err)
			}
			m.API, m.Version, m.Server = types.StringValue(j.API), types.StringValue(j.Version), types.StringValue(j.Server)
			m.Parts = listOf(ctx, j.Parts, &diags)
			var more diag.Diagnostics
			m.Software, more = types.MapValueFrom(ctx, types.StringType, j.Software)
			return append(diags, more...)
		}}
}

type serverDataModel struct {
	Name      types.String              `tfsdk:"name"`
	Role      types.String              `tfsdk:"role"`
	Version   types.String              `tfsdk:"version"`
	Addresses map[string][]types.String `tfsdk:"addresses"`
}

type serversDataModel struct {
	Role    types.String      `tfsdk:"role"`
	Servers []serverDataModel `tfsdk:"servers"`
}

func newServersData() datasource.DataSource {
	return &lookup[serversDataModel]{name: "servers", scheme: schema.Schema{
		MarkdownDescription: "The servers that the directory lists.",
		Attributes: map[string]schema.Attribute{
			"role": schema.StringAttribute{Optional: true, MarkdownDescription: "Only those of this role."},
			"servers": schema.ListNestedAttribute{Computed: true, MarkdownDescription: "The servers.", NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
				"name": answered("Name."), "role": answered("Role."), "version": answered("Version that it announced."),
				"addresses": schema.MapAttribute{Computed: true, ElementType: types.ListType{ElemType: types.StringType}, MarkdownDescription: "`host:port` by service."},
			}}},
		}},
		read: func(ctx context.Context, c *clients, m *serversDataModel) diag.Diagnostics {
			d, err := c.directory()
			if err != nil {
				return problem("no directory", err)
			}
			all, err := d.List(ctx, d.ServersDN(), "(objectClass=shoalServer)")
			if err != nil {
				return problem("cannot list the servers", err)
			}
			m.Servers = []serverDataModel{}
			for _, e := range all {
				if r := m.Role.ValueString(); r != "" && !strings.EqualFold(r, e.First("shoalRole")) {
					continue
				}
				s := serverDataModel{types.StringValue(e.First("cn")), types.StringValue(e.First("shoalRole")), types.StringValue(e.First("shoalVersion")), map[string][]types.String{}}
				for _, a := range e["shoalAddress"] {
					service, address, _ := strings.Cut(a, " ")
					s.Addresses[service] = append(s.Addresses[service], types.StringValue(address))
				}
				m.Servers = append(m.Servers, s)
			}
			return nil
		}}
}

type volumeDataModel struct {
	Agent    types.String `tfsdk:"agent"`
	Name     types.String `tfsdk:"name"`
	Kind     types.String `tfsdk:"kind"`
	VolumeID types.String `tfsdk:"volume_id"`
	Policy   types.String `tfsdk:"policy"`
	Path     types.String `tfsdk:"path"`
	Size     types.Int64  `tfsdk:"size"`
	Free     types.Int64  `tfsdk:"free"`
}

func newVolumeData() datasource.DataSource {
	return &lookup[volumeDataModel]{name: "nfs_volume", scheme: schema.Schema{
		MarkdownDescription: "A volume of a storage server.",
		Attributes: map[string]schema.Attribute{
			"agent": given("The agent: `host:port` of its API."), "name": given("Name of the volume."),
			"kind": answered("`mail` or `queue`."), "volume_id": answered("UUID in its marker file."), "policy": answered("Export policy."), "path": answered("Path that clients mount."),
			"size": schema.Int64Attribute{Computed: true, MarkdownDescription: "Of its file system, in bytes."},
			"free": schema.Int64Attribute{Computed: true, MarkdownDescription: "Left of it, in bytes."},
		}},
		read: func(ctx context.Context, c *clients, m *volumeDataModel) diag.Diagnostics {
			a, err := c.agents()
			var j volumeJSON
			if err == nil {
				_, err = a.Do(ctx, m.Agent.ValueString(), http.MethodGet, "/v1/nfs/volumes/"+m.Name.ValueString(), nil, &j)
			}
			if err != nil {
				return problem("cannot read the volume", err)
			}
			m.Kind, m.VolumeID, m.Policy, m.Path = types.StringValue(j.Kind), types.StringValue(j.ID), types.StringValue(j.Policy), types.StringValue(j.Path)
			m.Size, m.Free = types.Int64Value(j.Size), types.Int64Value(j.Free)
			return nil
		}}
}

type memberDataModel struct {
	Address  types.String `tfsdk:"address"`
	State    types.String `tfsdk:"state"`
	Status   types.String `tfsdk:"status"`
	Sessions types.Int64  `tfsdk:"sessions"`
}

type poolDataModel struct {
	Agent   types.String               `tfsdk:"agent"`
	Name    types.String               `tfsdk:"name"`
	Bind    types.List                 `tfsdk:"bind"`
	Members map[string]memberDataModel `tfsdk:"members"`
}

func newPoolData() datasource.DataSource {
	return &lookup[poolDataModel]{name: "lb_pool", scheme: schema.Schema{
		MarkdownDescription: "A pool of a balancer, and what HAProxy says of its members now.",
		Attributes: map[string]schema.Attribute{
			"agent": given("The agent: `host:port` of its API."), "name": given("Name of the pool."),
			"bind": schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Addresses that it listens on."},
			"members": schema.MapNestedAttribute{Computed: true, MarkdownDescription: "Members by name.", NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
				"address": answered("Where it serves."), "state": answered("`ready`, `drain` or `maint`."), "status": answered("What HAProxy says: `UP`, `DOWN` ..."),
				"sessions": schema.Int64Attribute{Computed: true, MarkdownDescription: "Its sessions now."},
			}}},
		}},
		read: func(ctx context.Context, c *clients, m *poolDataModel) (diags diag.Diagnostics) {
			a, err := c.agents()
			var j struct {
				Bind    []string
				Members map[string]struct {
					Address, State, Status string
					Sessions               int64
				}
			}
			if err == nil {
				_, err = a.Do(ctx, m.Agent.ValueString(), http.MethodGet, "/v1/lb/pools/"+m.Name.ValueString(), nil, &j)
			}
			if err != nil {
				return problem("cannot read the pool", err)
			}
			m.Bind, m.Members = listOf(ctx, j.Bind, &diags), map[string]memberDataModel{}
			for name, v := range j.Members {
				m.Members[name] = memberDataModel{types.StringValue(v.Address), types.StringValue(v.State), types.StringValue(v.Status), types.Int64Value(v.Sessions)}
			}
			return diags
		}}
}
