package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type enrolToken struct{ c *clients }

func newEnrolToken() ephemeral.EphemeralResource { return &enrolToken{} }

type tokenModel struct {
	Server  types.String `tfsdk:"server"`
	Hosts   types.List   `tfsdk:"hosts"`
	Minutes types.Int64  `tfsdk:"life_minutes"`
	Token   types.String `tfsdk:"token"`
}

func (t *enrolToken) Metadata(_ context.Context, req ephemeral.MetadataRequest, resp *ephemeral.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_enrol_token"
}

func (t *enrolToken) Schema(_ context.Context, _ ephemeral.SchemaRequest, resp *ephemeral.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "A one-time token with which a server enrols, for write-only attributes of other providers' machines. It is made anew each time that Terraform opens it; what is not used expires. `shoal_machine` makes its own.",
		Attributes: map[string]schema.Attribute{
			"server":       schema.StringAttribute{Required: true, Validators: serverName, MarkdownDescription: "Name of the server, which must have an entry: depend on its `shoal_server`."},
			"hosts":        schema.ListAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "DNS names and addresses that may stand in the certificate."},
			"life_minutes": schema.Int64Attribute{Optional: true, Validators: []validator.Int64{int64validator.Between(1, 43200)}, MarkdownDescription: "How long it is good; 60 if not given."},
			"token":        schema.StringAttribute{Computed: true, Sensitive: true, MarkdownDescription: "The token."},
		}}
}

func (t *enrolToken) Configure(_ context.Context, req ephemeral.ConfigureRequest, _ *ephemeral.ConfigureResponse) {
	t.c, _ = req.ProviderData.(*clients)
}

func (t *enrolToken) Open(ctx context.Context, req ephemeral.OpenRequest, resp *ephemeral.OpenResponse) {
	var m tokenModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	d, err := t.c.directory()
	if err != nil {
		resp.Diagnostics.AddError("no directory", err.Error())
	}
	if resp.Diagnostics.HasError() {
		return
	}
	life := time.Hour
	if !m.Minutes.IsNull() {
		life = time.Duration(m.Minutes.ValueInt64()) * time.Minute
	}
	token, err := d.NewToken(ctx, m.Server.ValueString(), strs(ctx, m.Hosts, &resp.Diagnostics), life)
	if err != nil {
		resp.Diagnostics.AddError("cannot make a token for "+m.Server.ValueString(), err.Error())
		return
	}
	m.Token = types.StringValue(token)
	resp.Diagnostics.Append(resp.Result.Set(ctx, &m)...)
}
