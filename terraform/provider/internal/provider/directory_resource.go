package provider

import (
	"context"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"

	"shoal/terraform/provider/internal/shoal"
)

// entryModel is a resource that is an entry of the directory.
type entryModel[M any] interface {
	*M
	dn(d *shoal.Directory) string
	// entry gives the attributes that Terraform keeps, and those that only a new entry gets. An attribute without values is taken out.
	entry(ctx context.Context) (kept, fresh shoal.Entry, diags diag.Diagnostics)
	// take reads an entry.
	take(ctx context.Context, d *shoal.Directory, e shoal.Entry) diag.Diagnostics
	named(id string) error
	protected() bool
	// secrets reads write-only attributes from the configuration and gives what is to be written beside entry; stored is the model in the
	// state, nil for a new one.
	secrets(ctx context.Context, c tfsdk.Config, stored *M) (shoal.Entry, diag.Diagnostics)
}

type entryResource[M any, P entryModel[M]] struct {
	name   string
	scheme schema.Schema
	c      *clients
}

func (r *entryResource[M, P]) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_" + r.name
}

func (r *entryResource[M, P]) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = r.scheme
}

func (r *entryResource[M, P]) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	r.c, _ = req.ProviderData.(*clients)
}

// read fills the model from the directory.
func (r *entryResource[M, P]) read(ctx context.Context, d *shoal.Directory, m P) (bool, diag.Diagnostics) {
	e, err := d.Read(ctx, m.dn(d))
	if errors.Is(err, shoal.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, diag.Diagnostics{diag.NewErrorDiagnostic("cannot read "+m.dn(d), err.Error())}
	}
	return true, m.take(ctx, d, e)
}

func (r *entryResource[M, P]) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.Plan.Get(ctx, m)...)
	d, err := r.c.directory()
	if err != nil {
		resp.Diagnostics.AddError("no directory", err.Error())
	}
	kept, fresh, diags := m.entry(ctx)
	secret, more := m.secrets(ctx, req.Config, nil)
	resp.Diagnostics.Append(append(diags, more...)...)
	if resp.Diagnostics.HasError() {
		return
	}
	for _, e := range []shoal.Entry{kept, secret} {
		for k, v := range e {
			fresh[k] = v
		}
	}
	if err := d.Add(ctx, m.dn(d), fresh); err != nil {
		resp.Diagnostics.AddError("cannot add "+m.dn(d), err.Error())
		return
	}
	_, diags = r.read(ctx, d, m)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

func (r *entryResource[M, P]) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	d, err := r.c.directory()
	if err != nil {
		resp.Diagnostics.AddError("no directory", err.Error())
	}
	if resp.Diagnostics.HasError() {
		return
	}
	found, diags := r.read(ctx, d, m)
	resp.Diagnostics.Append(diags...)
	switch {
	case diags.HasError():
	case !found:
		resp.State.RemoveResource(ctx)
	default:
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}

func (r *entryResource[M, P]) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	m, old := P(new(M)), new(M)
	resp.Diagnostics.Append(req.Plan.Get(ctx, m)...)
	resp.Diagnostics.Append(req.State.Get(ctx, old)...)
	d, err := r.c.directory()
	if err != nil {
		resp.Diagnostics.AddError("no directory", err.Error())
	}
	kept, _, diags := m.entry(ctx)
	secret, more := m.secrets(ctx, req.Config, old)
	resp.Diagnostics.Append(append(diags, more...)...)
	if resp.Diagnostics.HasError() {
		return
	}
	for k, v := range secret {
		kept[k] = v
	}
	if err := d.Replace(ctx, m.dn(d), kept); err != nil {
		resp.Diagnostics.AddError("cannot change "+m.dn(d), err.Error())
		return
	}
	_, diags = r.read(ctx, d, m)
	resp.Diagnostics.Append(diags...)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// ModifyPlan refuses to delete what is protected while it is still a plan.
func (r *entryResource[M, P]) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if !req.Plan.Raw.IsNull() || req.State.Raw.IsNull() {
		return
	}
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	if m.protected() {
		resp.Diagnostics.AddError("deletion protection", protection(m.dn(&shoal.Directory{})))
	}
}

func (r *entryResource[M, P]) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	d, err := r.c.directory()
	if err != nil {
		resp.Diagnostics.AddError("no directory", err.Error())
	}
	if resp.Diagnostics.HasError() {
		return
	}
	if m.protected() { // a replacement, which no plan to destroy came before
		resp.Diagnostics.AddError("deletion protection", protection(m.dn(d)))
		return
	}
	if err := d.Delete(ctx, m.dn(d)); err != nil {
		resp.Diagnostics.AddError("cannot delete "+m.dn(d), err.Error())
	}
}

func (r *entryResource[M, P]) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	m := P(new(M))
	d, err := r.c.directory()
	if err == nil {
		err = m.named(req.ID)
	}
	if err != nil {
		resp.Diagnostics.AddError("cannot import "+r.name, err.Error())
		return
	}
	found, diags := r.read(ctx, d, m)
	resp.Diagnostics.Append(diags...)
	if !found && !diags.HasError() {
		resp.Diagnostics.AddError("cannot import "+r.name, "The directory has no entry "+m.dn(d)+".")
	}
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}
