package provider

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type machineResource struct{ c *clients }

type machineModel struct {
	ID            types.String   `tfsdk:"id"`
	Name          types.String   `tfsdk:"name"`
	Pool          types.String   `tfsdk:"pool"`
	Image         types.String   `tfsdk:"image"`
	DomainType    types.String   `tfsdk:"domain_type"`
	Memory        types.Int64    `tfsdk:"memory_mib"`
	VCPU          types.Int64    `tfsdk:"vcpu"`
	RootGiB       types.Int64    `tfsdk:"root_gib"`
	DataGiB       types.Int64    `tfsdk:"data_gib"`
	KeepData      types.Bool     `tfsdk:"keep_data"`
	Networks      []networkModel `tfsdk:"networks"`
	UserData      types.String   `tfsdk:"user_data"`
	UserDataWO    types.String   `tfsdk:"user_data_wo"`
	NetworkConfig types.String   `tfsdk:"network_config"`
	Enrol         *enrolModel    `tfsdk:"enrol"`
	Ready         *readyModel    `tfsdk:"ready"`
	RollingGroup  types.String   `tfsdk:"rolling_group"`
	Drain         []drainModel   `tfsdk:"drain"`
	DrainSeconds  types.Int64    `tfsdk:"drain_seconds"`
	StopSeconds   types.Int64    `tfsdk:"stop_seconds"`
	Running       types.Bool     `tfsdk:"running"`
	Protection    types.Bool     `tfsdk:"deletion_protection"`
}

type networkModel struct {
	Network types.String `tfsdk:"network"`
	Bridge  types.String `tfsdk:"bridge"`
	MAC     types.String `tfsdk:"mac"`
}

type enrolModel struct {
	Server types.String   `tfsdk:"server"`
	URL    types.String   `tfsdk:"url"`
	SHA256 types.String   `tfsdk:"ca_sha256"`
	Hosts  []types.String `tfsdk:"hosts"`
}

type readyModel struct {
	Address types.String `tfsdk:"address"`
	Seconds types.Int64  `tfsdk:"seconds"`
}

type drainModel struct {
	Agent  types.String `tfsdk:"agent"`
	Pool   types.String `tfsdk:"pool"`
	Member types.String `tfsdk:"member"`
}

func newMachine() resource.Resource { return &machineResource{} }

func (r *machineResource) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_machine"
}

func (r *machineResource) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	r.c, _ = req.ProviderData.(*clients)
}

func (r *machineResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	between := func(a, b int64) []validator.Int64 { return []validator.Int64{int64validator.Between(a, b)} }
	number := func(def int64, a, b int64, text string) schema.Attribute {
		return schema.Int64Attribute{Optional: true, Computed: true, Default: int64default.StaticInt64(def), Validators: between(a, b), MarkdownDescription: text}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A virtual machine of libvirt, made of an image of a role. Another `image`, `user_data` or `network_config` rebuilds it in one operation: drained, stopped, made anew over the new image with its data disk, started, waited for; of a `rolling_group` one at a time, whatever `-parallelism` is. Memory, processors and networks change with a restart. What libvirt has no place for is kept as metadata of its domain, so that an import finds it. Import: `pool/name`.",
		Attributes: map[string]schema.Attribute{
			"id":             idAttribute(),
			"name":           schema.StringAttribute{Required: true, PlanModifiers: replaced(), Validators: thingName, MarkdownDescription: "Name of the machine."},
			"pool":           schema.StringAttribute{Required: true, PlanModifiers: replaced(), MarkdownDescription: "Storage pool for its disks."},
			"image":          schema.StringAttribute{Required: true, MarkdownDescription: "Path of the image on the hypervisor (`shoal_image.x.path`)."},
			"domain_type":    schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("kvm"), PlanModifiers: replaced(), Validators: []validator.String{stringvalidator.OneOf("kvm", "qemu")}, MarkdownDescription: "`kvm`, or `qemu` where the processor cannot."},
			"memory_mib":     number(1024, 256, 4194304, "Memory in MiB."),
			"vcpu":           number(2, 1, 512, "Processors."),
			"root_gib":       number(8, 1, 65536, "Size of the root disk, which is made anew with each image."),
			"data_gib":       number(0, 0, 1048576, "Size of the data disk, for state that survives another image; 0: none."),
			"keep_data":      schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(true), MarkdownDescription: "The data disk stays when the machine is destroyed, and is found again by one of the same name."},
			"user_data":      schema.StringAttribute{Required: true, MarkdownDescription: "Settings for the first boot: a JSON object (`jsonencode`). No secrets."},
			"user_data_wo":   schema.StringAttribute{Optional: true, WriteOnly: true, Sensitive: true, MarkdownDescription: "Secrets for the first boot, laid over `user_data`. Never in plan or state."},
			"network_config": schema.StringAttribute{Optional: true, MarkdownDescription: "Network of the machine: version 2, as JSON or YAML."},
			"networks": schema.ListNestedAttribute{Required: true, Validators: []validator.List{listvalidator.SizeBetween(1, 8)}, MarkdownDescription: "Interfaces, in order.", NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
				"network": schema.StringAttribute{Optional: true, Validators: []validator.String{stringvalidator.ExactlyOneOf(path.MatchRelative().AtParent().AtName("bridge"))}, MarkdownDescription: "Network of libvirt."},
				"bridge":  schema.StringAttribute{Optional: true, MarkdownDescription: "Or a bridge of the host."},
				"mac":     schema.StringAttribute{Required: true, Validators: matching(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`, "must be a MAC address in lower case"), MarkdownDescription: "MAC address."},
			}}},
			"enrol": schema.SingleNestedAttribute{Optional: true, MarkdownDescription: "The machine enrols: a one-time token is made when it is (re)built, and written to its seed only.", Attributes: map[string]schema.Attribute{
				"server":    schema.StringAttribute{Required: true, Validators: serverName, MarkdownDescription: "Name of its `shoal_server`."},
				"url":       schema.StringAttribute{Required: true, MarkdownDescription: "The authority: `https://host:port`."},
				"ca_sha256": schema.StringAttribute{Required: true, Validators: matching(`^[0-9a-f]{64}$`, "must be 64 hexadecimal digits"), MarkdownDescription: "Fingerprint of the CA."},
				"hosts":     schema.ListAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "DNS names and addresses that may stand in its certificate."},
			}},
			"ready": schema.SingleNestedAttribute{Optional: true, MarkdownDescription: "What is waited for after a start.", Attributes: map[string]schema.Attribute{
				"address": schema.StringAttribute{Required: true, Validators: hostPort, MarkdownDescription: "Control API of the role, `host:port`: asked over mutual TLS, it must be this server, and ready."},
				"seconds": number(300, 1, 7200, "How long."),
			}},
			"rolling_group": schema.StringAttribute{Optional: true, MarkdownDescription: "Machines of one group are rebuilt and restarted one at a time."},
			"drain": schema.ListNestedAttribute{Optional: true, MarkdownDescription: "Members of pools that are drained before it is rebuilt or restarted, and ready again after.", NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
				"agent":  schema.StringAttribute{Required: true, Validators: hostPort, MarkdownDescription: "The balancer's agent."},
				"pool":   schema.StringAttribute{Required: true, MarkdownDescription: "Pool."},
				"member": schema.StringAttribute{Required: true, MarkdownDescription: "Member."},
			}}},
			"drain_seconds":       number(300, 0, 86400, "How long its sessions may go on."),
			"stop_seconds":        number(60, 0, 3600, "How long it may take to power off by itself before it is switched off."),
			"running":             schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(true), MarkdownDescription: "Whether it is to run: one that somebody has stopped is started again."},
			"deletion_protection": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(false), MarkdownDescription: "Refuse plans that destroy it; rebuilding is allowed."},
		}}
}

// rebuilds says whether a change needs the machine to be made anew; restarts whether it needs to be stopped for it.
func rebuilds(a, b *machineModel) bool {
	return !a.Image.Equal(b.Image) || !a.UserData.Equal(b.UserData) || !a.NetworkConfig.Equal(b.NetworkConfig) || !a.RootGiB.Equal(b.RootGiB)
}

func restarts(a, b *machineModel) bool {
	if !a.Memory.Equal(b.Memory) || !a.VCPU.Equal(b.VCPU) || !a.DataGiB.Equal(b.DataGiB) || !a.Running.Equal(b.Running) || len(a.Networks) != len(b.Networks) {
		return true
	}
	for i, n := range a.Networks {
		if !n.MAC.Equal(b.Networks[i].MAC) || !n.Network.Equal(b.Networks[i].Network) || !n.Bridge.Equal(b.Networks[i].Bridge) {
			return true
		}
	}
	return false
}

// ValidateConfig refuses seeds by which the machine would never be known to the others.
func (r *machineResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var name, data, secret types.String
	var enrol types.Object
	for attribute, into := range map[string]any{"name": &name, "user_data": &data, "user_data_wo": &secret, "enrol": &enrol} {
		resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root(attribute), into)...)
	}
	if resp.Diagnostics.HasError() || data.IsUnknown() || data.IsNull() {
		return
	}
	var user struct {
		Shoal *struct{ Role string }
	}
	if err := json.Unmarshal([]byte(data.ValueString()), &user); err != nil {
		resp.Diagnostics.AddAttributeError(path.Root("user_data"), "no JSON object", "user_data must be a JSON object: jsonencode({ ... }).")
		return
	}
	if user.Shoal != nil && user.Shoal.Role != "filter" && enrol.IsNull() && secret.IsNull() {
		resp.Diagnostics.AddError("a seed without credentials", fmt.Sprintf(
			"Machine %s would boot as a %s that the others do not know: give enrol, or its credentials in user_data_wo.", name.ValueString(), user.Shoal.Role))
	}
}

// ModifyPlan refuses what is protected or cannot be, and says in the plan what an update will do to the machine.
func (r *machineResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	var state, plan machineModel
	exists := !req.State.Raw.IsNull()
	if exists {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	}
	if req.Plan.Raw.IsNull() {
		if state.Protection.ValueBool() {
			resp.Diagnostics.AddError("deletion protection", protection("machine "+state.Name.ValueString()))
		}
		return
	}
	// One by one: what is nested may not be known yet.
	for attribute, into := range map[string]any{"name": &plan.Name, "pool": &plan.Pool, "image": &plan.Image, "memory_mib": &plan.Memory, "vcpu": &plan.VCPU,
		"root_gib": &plan.RootGiB, "data_gib": &plan.DataGiB, "user_data": &plan.UserData, "network_config": &plan.NetworkConfig, "running": &plan.Running} {
		resp.Diagnostics.Append(req.Plan.GetAttribute(ctx, path.Root(attribute), into)...)
	}
	var networks types.List
	resp.Diagnostics.Append(req.Plan.GetAttribute(ctx, path.Root("networks"), &networks)...)
	if !networks.IsUnknown() {
		resp.Diagnostics.Append(networks.ElementsAs(ctx, &plan.Networks, false)...)
	}
	if resp.Diagnostics.HasError() {
		return
	}
	rebuild, restart := exists && rebuilds(&state, &plan), exists && restarts(&state, &plan)
	if (!exists || rebuild || restart) && r.c != nil {
		h, err := r.c.libvirt()
		if err == nil {
			err = h.fits(&plan)
		}
		if err != nil {
			resp.Diagnostics.AddError("this machine cannot be", err.Error())
			return
		}
	}
	switch name := state.Name.ValueString(); {
	case exists && plan.DataGiB.ValueInt64() < state.DataGiB.ValueInt64():
		resp.Diagnostics.AddAttributeError(path.Root("data_gib"), "a data disk does not shrink",
			fmt.Sprintf("Machine %s has a data disk of %d GiB.", name, state.DataGiB.ValueInt64()))
	case rebuild:
		resp.Diagnostics.AddWarning("machine "+name+" is rebuilt", "It is drained, stopped, made anew over its image with its data disk, and started.")
	case restart:
		resp.Diagnostics.AddWarning("machine "+name+" is restarted", "It is drained, stopped and started.")
	}
}
