package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type imageResource struct{ c *clients }

type imageModel struct {
	ID     types.String `tfsdk:"id"`
	Name   types.String `tfsdk:"name"`
	Pool   types.String `tfsdk:"pool"`
	Source types.String `tfsdk:"source"`
	SHA256 types.String `tfsdk:"sha256"`
	Path   types.String `tfsdk:"path"`
}

func newImage() resource.Resource { return &imageResource{} }

func (r *imageResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_image"
}

func (r *imageResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "An image of a role (qcow2) in a storage pool of libvirt, uploaded from a file whose checksum is known. Machines lie over it: give a new image a new name. An import reads the volume for its checksum. Import: `pool/name`.",
		Attributes: map[string]schema.Attribute{
			"id":     idAttribute(),
			"name":   schema.StringAttribute{Required: true, PlanModifiers: replaced(), Validators: matching(`^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$`, "must be a plain file name"), MarkdownDescription: "Name of the volume, with the image's version in it."},
			"pool":   schema.StringAttribute{Required: true, PlanModifiers: replaced(), MarkdownDescription: "Storage pool of libvirt."},
			"source": schema.StringAttribute{Required: true, MarkdownDescription: "File of the image on the machine that runs Terraform."},
			"sha256": schema.StringAttribute{Required: true, PlanModifiers: replaced(), Validators: matching(`^[0-9a-f]{64}$`, "must be 64 hexadecimal digits"), MarkdownDescription: "SHA-256 of the file, from the images' manifest: another file is refused."},
			"path":   schema.StringAttribute{Computed: true, PlanModifiers: kept(), MarkdownDescription: "Where it lies on the hypervisor."},
		}}
}

func (r *imageResource) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	r.c, _ = req.ProviderData.(*clients)
}

// checkImage reads the file: it must be there, be qcow2, and have the checksum.
func checkImage(path, sum string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil || string(head) != "QFI\xfb" {
		return fmt.Errorf("%s is not an image in qcow2 format", path)
	}
	h := sha256.New()
	h.Write(head)
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("%s is not the image that was meant: its SHA-256 is %s, wanted %s", path, got, sum)
	}
	return nil
}

// ModifyPlan looks at the file of a new image while it is still a plan.
func (r *imageResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.Plan.Raw.IsNull() {
		return
	}
	var plan, state imageModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	if !req.State.Raw.IsNull() {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	}
	if resp.Diagnostics.HasError() || plan.Source.IsUnknown() || plan.SHA256.IsUnknown() || state.SHA256.Equal(plan.SHA256) {
		return
	}
	if err := checkImage(plan.Source.ValueString(), plan.SHA256.ValueString()); err != nil {
		resp.Diagnostics.AddError("wrong image", err.Error())
	}
}

func (r *imageResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m imageModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	h, err := r.c.libvirt()
	if err == nil {
		err = checkImage(m.Source.ValueString(), m.SHA256.ValueString())
	}
	if err != nil {
		resp.Diagnostics.AddError("cannot make the image", err.Error())
	}
	if resp.Diagnostics.HasError() {
		return
	}
	st, err := os.Stat(m.Source.ValueString())
	if err != nil {
		resp.Diagnostics.AddError("cannot make the image", err.Error())
		return
	}
	v, err := h.createVolume(m.Pool.ValueString(), m.Name.ValueString(), "qcow2", uint64(st.Size()), "")
	if err != nil {
		resp.Diagnostics.AddError("cannot make the image", err.Error())
		return
	}
	m.ID = types.StringValue(m.Pool.ValueString() + "/" + m.Name.ValueString())
	m.Path = types.StringValue("")
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...) // it is there: whatever comes now
	if err := h.uploadFile(v, m.Source.ValueString()); err != nil {
		resp.Diagnostics.AddError("cannot upload the image", err.Error())
		return
	}
	path, err := h.l.StorageVolGetPath(v)
	if err != nil {
		resp.Diagnostics.AddError("cannot read the image", err.Error())
		return
	}
	m.Path = types.StringValue(path)
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}

func (r *imageResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m imageModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	h, err := r.c.libvirt()
	if err != nil {
		resp.Diagnostics.AddError("cannot read the image", err.Error())
		return
	}
	v, found, err := h.volume(m.Pool.ValueString(), m.Name.ValueString())
	if err != nil {
		resp.Diagnostics.AddError("cannot read the image", err.Error())
		return
	}
	if !found {
		resp.State.RemoveResource(ctx)
		return
	}
	path, err := h.l.StorageVolGetPath(v)
	if err != nil {
		resp.Diagnostics.AddError("cannot read the image", err.Error())
		return
	}
	m.Path = types.StringValue(path)
	if m.SHA256.IsNull() { // imported: which image it is says its content
		sum, err := h.sum(v)
		if err != nil {
			resp.Diagnostics.AddError("cannot read the image", err.Error())
			return
		}
		m.SHA256 = types.StringValue(sum)
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}

// Update: only the name of the source can change without a new image.
func (r *imageResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m imageModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}

func (r *imageResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m imageModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	h, err := r.c.libvirt()
	if err == nil {
		err = h.removeVolume(m.Pool.ValueString(), m.Name.ValueString())
	}
	if err != nil {
		resp.Diagnostics.AddError("cannot delete the image", err.Error())
	}
}

func (r *imageResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	importPair(ctx, req.ID, "pool", "name", resp)
}
