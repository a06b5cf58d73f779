package provider

import (
	"context"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/mapvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"shoal/terraform/provider/internal/shoal"
)

var allRoles = []string{"switch", "box", "vault", "lb", "webmail", "provision", "storage", "filter"}

var addressSet = types.SetType{ElemType: types.StringType}

// protectedRole says whether the loss of such a server is the loss of data.
func protectedRole(role string) bool { return role == "vault" || role == "storage" }

// byRole is the deletion protection of a server for which none is configured.
type byRole struct{}

func (byRole) Description(context.Context) string         { return "true for vault and storage" }
func (byRole) MarkdownDescription(context.Context) string { return "true for vault and storage" }
func (byRole) PlanModifyBool(ctx context.Context, req planmodifier.BoolRequest, resp *planmodifier.BoolResponse) {
	var role types.String
	if resp.Diagnostics.Append(req.Plan.GetAttribute(ctx, path.Root("role"), &role)...); req.ConfigValue.IsNull() && !role.IsUnknown() {
		resp.PlanValue = types.BoolValue(protectedRole(role.ValueString()))
	}
}

type serverModel struct {
	ID         types.String `tfsdk:"id"`
	Name       types.String `tfsdk:"name"`
	Role       types.String `tfsdk:"role"`
	Addresses  types.Map    `tfsdk:"addresses"`
	Version    types.String `tfsdk:"version"`
	BindDN     types.String `tfsdk:"bind_dn"`
	Protection types.Bool   `tfsdk:"deletion_protection"`

	Password        types.String `tfsdk:"password_wo"`
	PasswordVersion types.Int64  `tfsdk:"password_wo_version"`
}

func newServer() resource.Resource {
	return &entryResource[serverModel, *serverModel]{name: "server", scheme: schema.Schema{
		MarkdownDescription: "A server's entry in the directory: only operators' tools make them. The server itself fills in its version, and its addresses where none are given here. Import: the name.",
		Attributes: map[string]schema.Attribute{
			"id":                  idAttribute(),
			"name":                schema.StringAttribute{Required: true, Validators: serverName, PlanModifiers: replaced(), MarkdownDescription: "Name of the server; it never changes."},
			"role":                schema.StringAttribute{Required: true, Validators: []validator.String{stringvalidator.OneOf(allRoles...)}, PlanModifiers: replaced(), MarkdownDescription: "What it is: `" + strings.Join(allRoles, "`, `") + "`."},
			"addresses":           schema.MapAttribute{Optional: true, Computed: true, ElementType: addressSet, Validators: []validator.Map{mapvalidator.ValueSetsAre(setvalidator.SizeAtLeast(1), setvalidator.ValueStringsAre(hostPort...))}, MarkdownDescription: "Where it serves, by service: `{ imap = [\"192.0.2.13:143\", \"[2001:db8::13]:143\"] }`. Without this the server announces its own, and Terraform leaves them alone."},
			"version":             schema.StringAttribute{Computed: true, MarkdownDescription: "The version that it announced; empty while it has not come up."},
			"bind_dn":             schema.StringAttribute{Computed: true, PlanModifiers: kept(), MarkdownDescription: "Its name in the directory."},
			"deletion_protection": schema.BoolAttribute{Optional: true, Computed: true, PlanModifiers: []planmodifier.Bool{byRole{}}, MarkdownDescription: "Refuse plans that destroy it; if not given, it is so for `vault` and `storage`."},
			"password_wo":         schema.StringAttribute{Optional: true, WriteOnly: true, Sensitive: true, Validators: []validator.String{stringvalidator.LengthBetween(16, 1024), stringvalidator.AlsoRequires(matchRoot("password_wo_version"))}, MarkdownDescription: "Password that the server binds with, for one that does not enrol, such as the directory's master. Never in plan or state."},
			"password_wo_version": schema.Int64Attribute{Optional: true, MarkdownDescription: "Another number: the password is written again."},
		}}}
}

func (m *serverModel) dn(d *shoal.Directory) string { return d.ServerDN(m.Name.ValueString()) }
func (m *serverModel) protected() bool              { return m.Protection.ValueBool() }
func (m *serverModel) named(id string) error {
	m.Name = types.StringValue(id)
	return nil
}

func (m *serverModel) entry(ctx context.Context) (kept, fresh shoal.Entry, diags diag.Diagnostics) {
	kept = shoal.Entry{"shoalRole": {m.Role.ValueString()}}
	if !m.Addresses.IsNull() && !m.Addresses.IsUnknown() {
		var all map[string][]string
		diags = m.Addresses.ElementsAs(ctx, &all, false)
		kept["shoalAddress"] = []string{}
		for service, addresses := range all {
			for _, a := range addresses {
				kept["shoalAddress"] = append(kept["shoalAddress"], service+" "+a)
			}
		}
	}
	return kept, shoal.Entry{"objectClass": {"shoalServer"}, "cn": {m.Name.ValueString()}}, diags
}

func (m *serverModel) take(ctx context.Context, d *shoal.Directory, e shoal.Entry) (diags diag.Diagnostics) {
	m.Role, m.Version = types.StringValue(e.First("shoalRole")), types.StringValue(e.First("shoalVersion"))
	m.ID, m.BindDN = m.Name, types.StringValue(m.dn(d))
	m.Password = types.StringNull()
	all := map[string][]string{}
	for _, a := range e["shoalAddress"] {
		service, address, _ := strings.Cut(a, " ")
		all[service] = append(all[service], address)
	}
	m.Addresses, diags = types.MapValueFrom(ctx, addressSet, all)
	if m.Protection.IsNull() { // imported
		m.Protection = types.BoolValue(protectedRole(m.Role.ValueString()))
	}
	return diags
}

func (m *serverModel) secrets(ctx context.Context, c tfsdk.Config, stored *serverModel) (shoal.Entry, diag.Diagnostics) {
	var in serverModel
	diags := c.Get(ctx, &in)
	if in.Password.IsNull() || stored != nil && stored.PasswordVersion.Equal(m.PasswordVersion) {
		return nil, diags
	}
	return shoal.Entry{"userPassword": {in.Password.ValueString()}}, diags
}

type domainModel struct {
	ID            types.String `tfsdk:"id"`
	Name          types.String `tfsdk:"name"`
	Status        types.String `tfsdk:"status"`
	DefaultVolume types.String `tfsdk:"default_volume"`
	CatchAll      types.String `tfsdk:"catch_all"`
	Protection    types.Bool   `tfsdk:"deletion_protection"`
}

func newDomain() resource.Resource {
	return &entryResource[domainModel, *domainModel]{name: "domain", scheme: schema.Schema{
		MarkdownDescription: "A mail domain. One with accounts cannot be destroyed. Import: the name.",
		Attributes: map[string]schema.Attribute{
			"id":                  idAttribute(),
			"name":                schema.StringAttribute{Required: true, Validators: domainName, PlanModifiers: replaced(), MarkdownDescription: "Name of the domain, in lower case."},
			"status":              schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("active"), Validators: []validator.String{stringvalidator.OneOf("active", "suspended", "closed")}, MarkdownDescription: "`active`, `suspended` or `closed`."},
			"default_volume":      schema.StringAttribute{Optional: true, Validators: thingName, MarkdownDescription: "Volume for new accounts."},
			"catch_all":           schema.StringAttribute{Optional: true, MarkdownDescription: "Address that gets the mail of unknown ones."},
			"deletion_protection": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(false), MarkdownDescription: "Refuse plans that destroy it."},
		}}}
}

func (m *domainModel) dn(d *shoal.Directory) string { return d.DomainDN(m.Name.ValueString()) }
func (m *domainModel) protected() bool              { return m.Protection.ValueBool() }
func (m *domainModel) named(id string) error {
	m.Name, m.Protection = types.StringValue(id), types.BoolValue(false)
	return nil
}

func (m *domainModel) entry(context.Context) (kept, fresh shoal.Entry, diags diag.Diagnostics) {
	return shoal.Entry{"shoalDomainStatus": {m.Status.ValueString()}, "shoalDefaultVolume": some(m.DefaultVolume), "shoalCatchAll": some(m.CatchAll)},
		shoal.Entry{"objectClass": {"shoalDomain", "domainRelatedObject"}, "associatedDomain": {m.Name.ValueString()}}, nil
}

// some is the value of a string that may not be there.
func some(s types.String) []string {
	if s.ValueString() == "" {
		return []string{}
	}
	return []string{s.ValueString()}
}

// maybe is the reverse.
func maybe(s string) types.String {
	if s == "" {
		return types.StringNull()
	}
	return types.StringValue(s)
}

func (m *domainModel) take(_ context.Context, _ *shoal.Directory, e shoal.Entry) diag.Diagnostics {
	m.ID, m.Status = m.Name, types.StringValue(e.First("shoalDomainStatus"))
	m.DefaultVolume, m.CatchAll = maybe(e.First("shoalDefaultVolume")), maybe(e.First("shoalCatchAll"))
	return nil
}

func (m *domainModel) secrets(context.Context, tfsdk.Config, *domainModel) (shoal.Entry, diag.Diagnostics) {
	return nil, nil
}

type shadowModel struct {
	ID              types.String `tfsdk:"id"`
	Name            types.String `tfsdk:"name"`
	Provider        types.List   `tfsdk:"master"`
	Filter          types.String `tfsdk:"filter"`
	Password        types.String `tfsdk:"password_wo"`
	PasswordVersion types.Int64  `tfsdk:"password_wo_version"`
	BindDN          types.String `tfsdk:"bind_dn"`
	Protection      types.Bool   `tfsdk:"deletion_protection"`
}

const wholeDirectory = "(objectClass=*)"

func newShadow() resource.Resource {
	return &entryResource[shadowModel, *shadowModel]{name: "directory_shadow", scheme: schema.Schema{
		MarkdownDescription: "A replication agreement: a server that may copy the directory, passwords included (its entry is of `shoalRole: vault`), from these masters. Import: the name.",
		Attributes: map[string]schema.Attribute{
			"id":                  idAttribute(),
			"name":                schema.StringAttribute{Required: true, Validators: serverName, PlanModifiers: replaced(), MarkdownDescription: "Name of the shadow's server."},
			"master":              schema.ListAttribute{Required: true, ElementType: types.StringType, PlanModifiers: []planmodifier.List{listplanmodifier.UseStateForUnknown()}, MarkdownDescription: "URIs of the master, `ldaps://host:port`, for the shadow's `provider`."},
			"filter":              schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString(wholeDirectory), Validators: []validator.String{rule{"a filter (RFC 4515)", filterText}}, MarkdownDescription: "Which entries are copied (RFC 4515): `shoalShadowFilter` of the shadow's entry. The configuration and what only gives the tree its form always are. `" + wholeDirectory + "`: everything. A shadow of a part cannot become the master."},
			"password_wo":         schema.StringAttribute{Optional: true, WriteOnly: true, Sensitive: true, Validators: []validator.String{stringvalidator.LengthBetween(16, 1024), stringvalidator.AlsoRequires(matchRoot("password_wo_version"))}, MarkdownDescription: "Password that the shadow binds with, for one that does not enrol. Never in plan or state."},
			"password_wo_version": schema.Int64Attribute{Optional: true, MarkdownDescription: "Another number: the password is written again."},
			"bind_dn":             schema.StringAttribute{Computed: true, PlanModifiers: kept(), MarkdownDescription: "Whom the shadow binds as."},
			"deletion_protection": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(false), MarkdownDescription: "Refuse plans that destroy it."},
		}}}
}

func (m *shadowModel) dn(d *shoal.Directory) string { return d.ServerDN(m.Name.ValueString()) }
func (m *shadowModel) protected() bool              { return m.Protection.ValueBool() }
func (m *shadowModel) named(id string) error {
	m.Name, m.Protection, m.Filter = types.StringValue(id), types.BoolValue(false), types.StringValue(wholeDirectory)
	return nil
}

// shadowNote begins the description of a shadow's entry; the masters follow.
const shadowNote = "shadow of "

func (m *shadowModel) entry(ctx context.Context) (kept, fresh shoal.Entry, diags diag.Diagnostics) {
	kept = shoal.Entry{"description": {shadowNote + strings.Join(strs(ctx, m.Provider, &diags), " ")}}
	kept["shoalShadowFilter"] = []string{}
	if f := m.Filter.ValueString(); f != wholeDirectory {
		kept["shoalShadowFilter"] = []string{f}
	}
	return kept, shoal.Entry{"objectClass": {"shoalServer"}, "cn": {m.Name.ValueString()}, "shoalRole": {"vault"}}, diags
}

func (m *shadowModel) take(ctx context.Context, d *shoal.Directory, e shoal.Entry) (diags diag.Diagnostics) {
	m.ID, m.BindDN = m.Name, types.StringValue(m.dn(d))
	masters, _ := strings.CutPrefix(e.First("description"), shadowNote)
	m.Provider = listOf(ctx, strings.Fields(masters), &diags)
	m.Password, m.Filter = types.StringNull(), types.StringValue(wholeDirectory)
	if f := e.First("shoalShadowFilter"); f != "" {
		m.Filter = types.StringValue(f)
	}
	if e.First("shoalRole") != "vault" {
		diags.AddError("not a shadow", "Server "+m.Name.ValueString()+" is of role "+e.First("shoalRole")+", which gets no copy of the directory.")
	}
	return diags
}

func (m *shadowModel) secrets(ctx context.Context, c tfsdk.Config, stored *shadowModel) (shoal.Entry, diag.Diagnostics) {
	var in shadowModel
	diags := c.Get(ctx, &in)
	if in.Password.IsNull() || stored != nil && stored.PasswordVersion.Equal(m.PasswordVersion) {
		return nil, diags
	}
	return shoal.Entry{"userPassword": {in.Password.ValueString()}}, diags
}
