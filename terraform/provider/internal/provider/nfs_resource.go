package provider

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/setdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"shoal/terraform/provider/internal/shoal"
)

type nfsVolume struct {
	ID         types.String `tfsdk:"id"`
	Agent      types.String `tfsdk:"agent"`
	Name       types.String `tfsdk:"name"`
	Kind       types.String `tfsdk:"kind"`
	VolumeID   types.String `tfsdk:"volume_id"`
	Policy     types.String `tfsdk:"policy"`
	Path       types.String `tfsdk:"path"`
	OnDelete   types.String `tfsdk:"on_delete"`
	Protection types.Bool   `tfsdk:"deletion_protection"`
}

func newNFSVolume() resource.Resource {
	return &agentResource[nfsVolume, *nfsVolume]{name: "nfs_volume", remove: removeVolume, scheme: schema.Schema{
		MarkdownDescription: "A folder of a storage server that holds mail or a queue, exported under a policy. Its data is never deleted. Import: `host:port/volume`.",
		Attributes: map[string]schema.Attribute{
			"id": idAttribute(), "agent": agentAttribute(),
			"name":                schema.StringAttribute{Required: true, Validators: thingName, PlanModifiers: replaced(), MarkdownDescription: "Name of the volume: `vol01`."},
			"kind":                schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("mail"), PlanModifiers: replaced(), MarkdownDescription: "`mail` or `queue`.", Validators: []validator.String{stringvalidator.OneOf("mail", "queue")}},
			"volume_id":           schema.StringAttribute{Optional: true, Computed: true, Validators: uuidValue, PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplaceIfConfigured(), stringplanmodifier.UseStateForUnknown()}, MarkdownDescription: "UUID in the volume's marker file, which boxes and switches compare; made there if not given."},
			"policy":              schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString(""), MarkdownDescription: "Export policy; without one the volume is not exported."},
			"path":                schema.StringAttribute{Computed: true, PlanModifiers: kept(), MarkdownDescription: "Path that clients mount."},
			"on_delete":           schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("refuse"), MarkdownDescription: "When the resource is destroyed while the volume holds data: `refuse`, or `keep` the data and only stop serving it.", Validators: []validator.String{stringvalidator.OneOf("refuse", "keep")}},
			"deletion_protection": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(true), MarkdownDescription: "Refuse plans that destroy it."},
		}}}
}

func (m *nfsVolume) where() (string, string) {
	return m.Agent.ValueString(), "/v1/nfs/volumes/" + m.Name.ValueString()
}
func (m *nfsVolume) protected() bool { return m.Protection.ValueBool() }
func (m *nfsVolume) named(id string) error {
	f, err := importID(id, 1)
	if err == nil {
		m.Agent, m.Name = types.StringValue(f[0]), types.StringValue(f[1])
		m.OnDelete, m.Protection = types.StringValue("refuse"), types.BoolValue(true)
	}
	return err
}

type volumeJSON struct {
	Kind   string `json:"kind"`
	ID     string `json:"id,omitempty"`
	Policy string `json:"policy"`
	Path   string `json:"path,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Free   int64  `json:"free,omitempty"`
	Drift  string `json:"drift,omitempty"`
}

func (m *nfsVolume) request(context.Context) (any, diag.Diagnostics) {
	return volumeJSON{Kind: m.Kind.ValueString(), ID: m.VolumeID.ValueString(), Policy: m.Policy.ValueString()}, nil
}

func (m *nfsVolume) take(ctx context.Context, raw func(any) error) diag.Diagnostics {
	var j volumeJSON
	if err := raw(&j); err != nil {
		return unreadable(err)
	}
	m.Kind, m.VolumeID, m.Policy, m.Path = types.StringValue(j.Kind), types.StringValue(j.ID), types.StringValue(j.Policy), types.StringValue(j.Path)
	if drifted(ctx, j.Drift) { // what is there, or in force, is not what the agent was asked for: the next apply sets it right, or says why not
		m.Policy = types.StringValue("drifted: " + j.Drift)
	}
	m.ID = types.StringValue(m.Agent.ValueString() + "/" + m.Name.ValueString())
	return nil
}

func removeVolume(ctx context.Context, a *shoal.Agents, m *nfsVolume) error {
	agent, path := m.where()
	if m.OnDelete.ValueString() == "keep" {
		path += "?data=keep"
	}
	_, err := a.Do(ctx, agent, http.MethodDelete, path, nil, nil)
	return err
}

type nfsPolicy struct {
	ID          types.String `tfsdk:"id"`
	Agent       types.String `tfsdk:"agent"`
	Name        types.String `tfsdk:"name"`
	Description types.String `tfsdk:"description"`
}

func newNFSPolicy() resource.Resource {
	return &agentResource[nfsPolicy, *nfsPolicy]{name: "nfs_export_policy", scheme: schema.Schema{
		MarkdownDescription: "An export policy: ordered rules (`shoal_nfs_export_rule`), of which the first that names a client counts. Import: `host:port/policy`.",
		Attributes: map[string]schema.Attribute{
			"id": idAttribute(), "agent": agentAttribute(),
			"name":        schema.StringAttribute{Required: true, Validators: thingName, PlanModifiers: replaced(), MarkdownDescription: "Name of the policy."},
			"description": schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString(""), MarkdownDescription: "For people.", Validators: []validator.String{stringvalidator.LengthAtMost(200)}},
		}}}
}

func (m *nfsPolicy) where() (string, string) {
	return m.Agent.ValueString(), "/v1/nfs/policies/" + m.Name.ValueString()
}
func (m *nfsPolicy) protected() bool { return false }
func (m *nfsPolicy) named(id string) error {
	f, err := importID(id, 1)
	if err == nil {
		m.Agent, m.Name = types.StringValue(f[0]), types.StringValue(f[1])
	}
	return err
}

type policyJSON struct {
	Description string `json:"description"`
}

func (m *nfsPolicy) request(context.Context) (any, diag.Diagnostics) {
	return policyJSON{m.Description.ValueString()}, nil
}

func (m *nfsPolicy) take(_ context.Context, raw func(any) error) diag.Diagnostics {
	var j policyJSON
	if err := raw(&j); err != nil {
		return unreadable(err)
	}
	m.Description, m.ID = types.StringValue(j.Description), types.StringValue(m.Agent.ValueString()+"/"+m.Name.ValueString())
	return nil
}

type nfsRule struct {
	ID       types.String `tfsdk:"id"`
	Agent    types.String `tfsdk:"agent"`
	Policy   types.String `tfsdk:"policy"`
	Index    types.Int64  `tfsdk:"index"`
	Clients  types.List   `tfsdk:"clients"`
	Access   types.String `tfsdk:"access"`
	Security types.Set    `tfsdk:"security"`
	Squash   types.String `tfsdk:"squash"`
}

func newNFSRule() resource.Resource {
	return &agentResource[nfsRule, *nfsRule]{name: "nfs_export_rule", scheme: schema.Schema{
		MarkdownDescription: "One rule of an export policy. Rules that would open a volume to the world, or let root through, are refused when the plan is made. Import: `host:port/policy/index`.",
		Attributes: map[string]schema.Attribute{
			"id": idAttribute(), "agent": agentAttribute(),
			"policy":   schema.StringAttribute{Required: true, Validators: thingName, PlanModifiers: replaced(), MarkdownDescription: "Name of the policy."},
			"index":    schema.Int64Attribute{Required: true, PlanModifiers: []planmodifier.Int64{int64planmodifier.RequiresReplace()}, Validators: []validator.Int64{int64validator.Between(1, 9999)}, MarkdownDescription: "Its place: rules are looked at from the lowest on."},
			"clients":  schema.ListAttribute{Required: true, ElementType: types.StringType, Validators: []validator.List{listvalidator.SizeBetween(1, 256), listvalidator.ValueStringsAre(nfsClient)}, MarkdownDescription: "Addresses and networks (CIDR); no names."},
			"access":   schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("rw"), Validators: []validator.String{stringvalidator.OneOf("rw", "ro", "none")}, MarkdownDescription: "`rw`, `ro` or `none`."},
			"security": schema.SetAttribute{Optional: true, Computed: true, ElementType: types.StringType, Default: setdefault.StaticValue(types.SetValueMust(types.StringType, []attr.Value{types.StringValue("sys")})), Validators: []validator.Set{setvalidator.SizeAtLeast(1), setvalidator.ValueStringsAre(stringvalidator.OneOf("sys", "krb5", "krb5i", "krb5p"))}, MarkdownDescription: "Which of `sys`, `krb5`, `krb5i`, `krb5p` are taken."},
			"squash":   schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("root"), Validators: []validator.String{stringvalidator.OneOf("root", "all")}, MarkdownDescription: "Who becomes nobody: `root`, or `all`. There is no way to let root through."},
		}}}
}

func (m *nfsRule) where() (string, string) {
	return m.Agent.ValueString(), "/v1/nfs/policies/" + m.Policy.ValueString() + "/rules/" + strconv.FormatInt(m.Index.ValueInt64(), 10)
}
func (m *nfsRule) protected() bool { return false }
func (m *nfsRule) named(id string) error {
	f, err := importID(id, 2)
	if err != nil {
		return err
	}
	i, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return fmt.Errorf("%q is no index of a rule", f[2])
	}
	m.Agent, m.Policy, m.Index = types.StringValue(f[0]), types.StringValue(f[1]), types.Int64Value(i)
	return nil
}

type ruleJSON struct {
	Clients  []string `json:"clients"`
	Access   string   `json:"access"`
	Security []string `json:"security"`
	Squash   string   `json:"squash"`
}

func (m *nfsRule) request(ctx context.Context) (any, diag.Diagnostics) {
	var d diag.Diagnostics
	return ruleJSON{strs(ctx, m.Clients, &d), m.Access.ValueString(), strs(ctx, m.Security, &d), m.Squash.ValueString()}, d
}

func (m *nfsRule) take(ctx context.Context, raw func(any) error) (d diag.Diagnostics) {
	var j ruleJSON
	if err := raw(&j); err != nil {
		return unreadable(err)
	}
	// An address is told as a network of one; here it stands as an address, unless it was written as such a network.
	written := strs(ctx, m.Clients, &d)
	for i, c := range j.Clients {
		if p, err := netip.ParsePrefix(c); err == nil && p.IsSingleIP() && !slices.Contains(written, c) {
			j.Clients[i] = p.Addr().String()
		}
	}
	m.Clients, m.Access, m.Security, m.Squash = listOf(ctx, j.Clients, &d), types.StringValue(j.Access), setOf(ctx, j.Security, &d), types.StringValue(j.Squash)
	m.ID = types.StringValue(fmt.Sprintf("%s/%s/%d", m.Agent.ValueString(), m.Policy.ValueString(), m.Index.ValueInt64()))
	return d
}
