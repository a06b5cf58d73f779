package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"

	"shoal/terraform/provider/internal/shoal"
)

// agentModel is a resource that an agent keeps: M is its model in Terraform.
type agentModel[M any] interface {
	*M
	// where gives the agent and the path of the thing in its API.
	where() (agent, path string)
	// request is the body of PUT.
	request(ctx context.Context) (any, diag.Diagnostics)
	// take reads the answer of GET; raw decodes it.
	take(ctx context.Context, raw func(any) error) diag.Diagnostics
	// named reads the parts of an import's id: agent first.
	named(id string) error
	// protected says whether deletion is to be refused.
	protected() bool
}

// agentResource is the life of such a resource: PUT makes and changes, GET reads, DELETE deletes.
type agentResource[M any, P agentModel[M]] struct {
	name   string // without the provider's
	scheme schema.Schema
	c      *clients
	// remove, if set, deletes in place of one DELETE.
	remove func(ctx context.Context, a *shoal.Agents, m P) error
}

func (r *agentResource[M, P]) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_" + r.name
}

func (r *agentResource[M, P]) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = r.scheme
}

func (r *agentResource[M, P]) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	r.c, _ = req.ProviderData.(*clients)
}

// put makes or changes, and reads what came of it.
func (r *agentResource[M, P]) put(ctx context.Context, m P) diag.Diagnostics {
	body, diags := m.request(ctx)
	if diags.HasError() {
		return diags
	}
	agents, err := r.c.agents()
	agent, path := m.where()
	if err == nil {
		_, err = agents.Do(ctx, agent, http.MethodPut, path, body, nil)
	}
	if err != nil {
		diags.AddError("cannot set up "+r.name+" "+path, err.Error())
		return diags
	}
	_, more := r.get(context.WithValue(ctx, asked{}, true), m)
	diags.Append(more...)
	return diags
}

// asked marks the context of a read that follows a change of one's own. What is not in force yet is no drift then: the rest of the
// same apply may be under way.
type asked struct{}

func drifted(ctx context.Context, what string) bool { return what != "" && ctx.Value(asked{}) == nil }

func (r *agentResource[M, P]) get(ctx context.Context, m P) (found bool, diags diag.Diagnostics) {
	agents, err := r.c.agents()
	agent, path := m.where()
	if err == nil {
		var raw rawJSON
		if _, err = agents.Do(ctx, agent, http.MethodGet, path, nil, &raw); err == nil {
			return true, m.take(ctx, raw.decode)
		}
	}
	if errors.Is(err, shoal.ErrNotFound) {
		return false, nil
	}
	diags.AddError("cannot read "+r.name+" "+path, err.Error())
	return false, diags
}

func (r *agentResource[M, P]) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.Plan.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if found, diags := r.get(ctx, P(clone(m))); found || diags.HasError() {
		resp.Diagnostics.Append(diags...)
		if found {
			agent, path := m.where()
			resp.Diagnostics.AddError(r.name+" exists already", fmt.Sprintf("The agent at %s has %s already, made by somebody else: import it, or choose another name.", agent, path))
		}
		return
	}
	resp.Diagnostics.Append(r.put(ctx, m)...)
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}

func clone[M any, P interface{ *M }](m P) *M {
	c := *m
	return &c
}

func (r *agentResource[M, P]) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	found, diags := r.get(ctx, m)
	resp.Diagnostics.Append(diags...)
	switch {
	case diags.HasError():
	case !found:
		resp.State.RemoveResource(ctx)
	default:
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}

func (r *agentResource[M, P]) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.Plan.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	resp.Diagnostics.Append(r.put(ctx, m)...)
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}

// ModifyPlan refuses to delete what is protected while it is still a plan.
func (r *agentResource[M, P]) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if !req.Plan.Raw.IsNull() || req.State.Raw.IsNull() {
		return
	}
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	if m.protected() {
		_, path := m.where()
		resp.Diagnostics.AddError("deletion protection", protection(r.name+" "+path))
	}
}

func protection(what string) string {
	return "The " + what + " is protected against deletion. If it is really to go, set deletion_protection = false, apply, and then remove it."
}

func (r *agentResource[M, P]) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	agent, path := m.where()
	if m.protected() { // a replacement, which no plan to destroy came before
		resp.Diagnostics.AddError("deletion protection", protection(r.name+" "+path))
		return
	}
	agents, err := r.c.agents()
	switch {
	case err != nil:
	case r.remove != nil:
		err = r.remove(ctx, agents, m)
	default:
		_, err = agents.Do(ctx, agent, http.MethodDelete, path, nil, nil)
	}
	if err != nil && !errors.Is(err, shoal.ErrNotFound) {
		resp.Diagnostics.AddError("cannot delete "+r.name+" "+path, err.Error())
	}
}

func (r *agentResource[M, P]) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	m := P(new(M))
	if err := m.named(req.ID); err != nil {
		resp.Diagnostics.AddError("cannot import "+r.name, err.Error())
		return
	}
	found, diags := r.get(ctx, m)
	resp.Diagnostics.Append(diags...)
	if !found && !diags.HasError() {
		agent, path := m.where()
		resp.Diagnostics.AddError("cannot import "+r.name, fmt.Sprintf("The agent at %s has no %s.", agent, path))
	}
	if !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	}
}
