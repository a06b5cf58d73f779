package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// Names of a machine's volumes.
func (m *machineModel) rootName() string { return m.Name.ValueString() + ".qcow2" }
func (m *machineModel) seedName() string { return m.Name.ValueString() + "-seed.iso" }
func (m *machineModel) dataName() string { return m.Name.ValueString() + "-data.qcow2" }

const (
	gib        = 1 << 30
	dataDevice = "vdc"
)

// domainXML describes the machine to libvirt.
func domainXML(m *machineModel, root, seed, data string, unfinished bool) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	disk := func(file, dev, format, extra string) {
		p("<disk type='file' device='disk'><driver name='qemu' type='%s' discard='unmap'/><source file='%s'/><target dev='%s' bus='virtio'/>%s</disk>", format, escape(file), dev, extra)
	}
	cpu := "host-passthrough"
	if m.DomainType.ValueString() == "qemu" {
		cpu = "maximum"
	}
	p("<domain type='%s'><name>%s</name>", m.DomainType.ValueString(), escape(m.Name.ValueString()))
	p("<metadata>%s</metadata>", m.kept(unfinished))
	p("<memory unit='MiB'>%d</memory><vcpu>%d</vcpu>", m.Memory.ValueInt64(), m.VCPU.ValueInt64())
	p("<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/></features><cpu mode='%s'/>", cpu)
	p("<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>restart</on_crash><devices>")
	disk(root, "vda", "qcow2", "")
	disk(seed, "vdb", "raw", "<readonly/>")
	if data != "" {
		disk(data, dataDevice, "qcow2", "<serial>shoal-data</serial>")
	}
	for _, n := range m.Networks {
		kind, name := "network", n.Network.ValueString()
		if name == "" {
			kind, name = "bridge", n.Bridge.ValueString()
		}
		p("<interface type='%s'><source %s='%s'/><mac address='%s'/><model type='virtio'/></interface>", kind, kind, escape(name), n.MAC.ValueString())
	}
	p("<serial type='pty'/><console type='pty'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>")
	return b.String()
}

// build makes root disk, seed and definition; the data disk is made if it is missing, and otherwise taken as it is.
func (r *machineResource) build(ctx context.Context, h *hypervisor, m *machineModel, secret string) error {
	pool := m.Pool.ValueString()
	user, err := r.userData(ctx, m)
	if err != nil {
		return err
	}
	iso, err := seedISO(m.Name.ValueString(), uuid.NewString(), user, secret, m.NetworkConfig.ValueString())
	if err != nil {
		return err
	}
	for _, name := range []string{m.rootName(), m.seedName()} {
		if err := h.removeVolume(pool, name); err != nil {
			return err
		}
	}
	if _, err := h.createVolume(pool, m.rootName(), "qcow2", uint64(m.RootGiB.ValueInt64())*gib, m.Image.ValueString()); err != nil {
		return err
	}
	seed, err := h.createVolume(pool, m.seedName(), "raw", uint64(len(iso)), "")
	if err != nil {
		return err
	}
	if err := h.upload(seed, bytes.NewReader(iso), int64(len(iso))); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return r.define(h, m)
}

// userData is user_data with what enrolling needs.
func (r *machineResource) userData(ctx context.Context, m *machineModel) (string, error) {
	user := map[string]any{}
	if err := json.Unmarshal([]byte(m.UserData.ValueString()), &user); err != nil {
		return "", errors.New("user_data must be a JSON object (jsonencode)")
	}
	if m.Enrol != nil {
		d, err := r.c.directory()
		if err != nil {
			return "", err
		}
		var hosts []string
		for _, h := range m.Enrol.Hosts {
			hosts = append(hosts, h.ValueString())
		}
		token, err := d.NewToken(ctx, m.Enrol.Server.ValueString(), hosts, time.Hour)
		if err != nil {
			return "", fmt.Errorf("token for %s: %w", m.Enrol.Server.ValueString(), err)
		}
		overlay(user, map[string]any{"shoal": map[string]any{
			"name": m.Enrol.Server.ValueString(), "enrol_url": m.Enrol.URL.ValueString(), "enrol_token": token, "ca_sha256": m.Enrol.SHA256.ValueString(),
		}})
	}
	b, err := json.Marshal(user)
	return string(b), err
}

// define tells libvirt what the machine is; the volumes are there.
func (r *machineResource) define(h *hypervisor, m *machineModel) error {
	pool := m.Pool.ValueString()
	data := ""
	if m.DataGiB.ValueInt64() > 0 {
		v, found, err := h.volume(pool, m.dataName())
		if err == nil && !found {
			v, err = h.createVolume(pool, m.dataName(), "qcow2", uint64(m.DataGiB.ValueInt64())*gib, "")
		}
		if err != nil {
			return err
		}
		want := uint64(m.DataGiB.ValueInt64()) * gib
		if _, capacity, _, err := h.l.StorageVolGetInfo(v); err != nil {
			return err
		} else if capacity < want {
			if err := h.l.StorageVolResize(v, want, 0); err != nil {
				return fmt.Errorf("data disk: %w", err)
			}
		}
		if data, err = h.l.StorageVolGetPath(v); err != nil {
			return err
		}
	}
	paths := make([]string, 2)
	for i, name := range []string{m.rootName(), m.seedName()} {
		v, found, err := h.volume(pool, name)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("volume %s/%s is gone", pool, name)
		}
		if paths[i], err = h.l.StorageVolGetPath(v); err != nil {
			return err
		}
	}
	if d, err := h.l.DomainLookupByName(m.Name.ValueString()); err == nil {
		if err := h.l.DomainUndefineFlags(d, 0); err != nil {
			return err
		}
	} else if !absent(err) {
		return err
	}
	d, err := h.l.DomainDefineXML(domainXML(m, paths[0], paths[1], data, true))
	if err != nil {
		return fmt.Errorf("define the machine: %w", err)
	}
	return h.l.DomainSetAutostart(d, 1)
}

func start(h *hypervisor, name string) error {
	d, err := h.l.DomainLookupByName(name)
	if err != nil {
		return err
	}
	if state, _, err := h.l.DomainGetState(d, 0); err != nil || state == domainRunning {
		return err
	}
	return h.l.DomainCreate(d)
}

func (r *machineResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m, in machineModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.Config.Get(ctx, &in)...)
	h, err := r.c.libvirt()
	if err == nil {
		if _, lerr := h.l.DomainLookupByName(m.Name.ValueString()); lerr == nil {
			err = fmt.Errorf("the hypervisor has a machine of this name already: import it (%s/%s), or choose another name", m.Pool.ValueString(), m.Name.ValueString())
		} else if !absent(lerr) {
			err = lerr
		}
	}
	if err == nil {
		err = h.fits(&m)
	}
	if err != nil {
		resp.Diagnostics.AddError("cannot make the machine", err.Error())
	}
	if resp.Diagnostics.HasError() {
		return
	}
	m.ID = types.StringValue(m.Pool.ValueString() + "/" + m.Name.ValueString())
	if err := r.build(ctx, h, &m, in.UserDataWO.ValueString()); err != nil {
		resp.Diagnostics.AddError("cannot make the machine", errors.Join(err, r.clean(h, &m, true)).Error())
		return
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...) // it is there: whatever comes now
	if err := r.run(ctx, h, &m); err != nil {
		resp.Diagnostics.AddError("the machine was made, but is not ready", err.Error())
	}
}

// run starts the machine, if it is to run, waits until its role is ready, and notes that.
func (r *machineResource) run(ctx context.Context, h *hypervisor, m *machineModel) error {
	if m.Running.ValueBool() {
		if err := start(h, m.Name.ValueString()); err != nil {
			return fmt.Errorf("start: %w", err)
		}
		if err := r.wait(ctx, m); err != nil {
			return err
		}
	}
	return h.keep(m, false)
}

func (r *machineResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m machineModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	h, err := r.c.libvirt()
	if err != nil {
		resp.Diagnostics.AddError("cannot read the machine", err.Error())
		return
	}
	d, err := h.l.DomainLookupByName(m.Name.ValueString())
	if absent(err) {
		resp.State.RemoveResource(ctx)
		return
	}
	if err == nil {
		err = m.read(h, d)
	}
	if err != nil {
		resp.Diagnostics.AddError("cannot read the machine", err.Error())
		return
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}

func (r *machineResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var plan, state, in machineModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &plan)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	resp.Diagnostics.Append(req.Config.Get(ctx, &in)...)
	h, err := r.c.libvirt()
	if err != nil {
		resp.Diagnostics.AddError("cannot change the machine", err.Error())
	}
	if resp.Diagnostics.HasError() {
		return
	}
	if err := r.change(ctx, h, &plan, &state, in.UserDataWO.ValueString()); err != nil {
		resp.Diagnostics.AddError("cannot change machine "+plan.Name.ValueString(), err.Error())
		return
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &plan)...)
}

func (r *machineResource) change(ctx context.Context, h *hypervisor, plan, state *machineModel, secret string) (err error) {
	rebuild := rebuilds(state, plan)
	if !rebuild && !restarts(state, plan) {
		return h.keep(plan, false)
	}
	done, err := r.c.rolls.turn(plan.RollingGroup.ValueString(), plan.Name.ValueString())
	if err != nil {
		return err
	}
	defer func() { done(err) }()
	if err := h.fits(plan); err != nil {
		return err // nothing was touched
	}
	if err := r.again(ctx, h, plan, rebuild, secret); err != nil {
		return fmt.Errorf("%w\n\nIts members stay drained until it is ready: apply again when the cause is mended", err)
	}
	return nil
}

// again drains, stops, makes anew or defines anew, starts, waits, and lets clients in again.
func (r *machineResource) again(ctx context.Context, h *hypervisor, m *machineModel, rebuild bool, secret string) error {
	if err := r.drain(ctx, m); err != nil {
		return err
	}
	d, err := h.l.DomainLookupByName(m.Name.ValueString())
	if err == nil {
		err = h.stop(d, time.Duration(m.StopSeconds.ValueInt64())*time.Second)
	}
	if err != nil && !absent(err) {
		return fmt.Errorf("stop: %w", err)
	}
	if rebuild {
		err = r.build(ctx, h, m, secret)
	} else {
		err = r.define(h, m)
	}
	if err != nil {
		return err
	}
	if err := r.run(ctx, h, m); err != nil || !m.Running.ValueBool() {
		return err
	}
	return r.undrain(ctx, m)
}

// clean removes what build made. Data is removed only where it may be, and never when build failed.
func (r *machineResource) clean(h *hypervisor, m *machineModel, keep bool) error {
	var errs []error
	if d, err := h.l.DomainLookupByName(m.Name.ValueString()); err == nil {
		errs = append(errs, h.l.DomainUndefineFlags(d, 0))
	}
	names := []string{m.rootName(), m.seedName()}
	if !keep {
		names = append(names, m.dataName())
	}
	for _, name := range names {
		errs = append(errs, h.removeVolume(m.Pool.ValueString(), name))
	}
	return errors.Join(errs...)
}

func (r *machineResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m machineModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	h, err := r.c.libvirt()
	if err != nil {
		resp.Diagnostics.AddError("cannot delete the machine", err.Error())
	}
	if resp.Diagnostics.HasError() {
		return
	}
	d, err := h.l.DomainLookupByName(m.Name.ValueString())
	if err == nil {
		err = h.stop(d, time.Duration(m.StopSeconds.ValueInt64())*time.Second)
	}
	if err != nil && !absent(err) {
		resp.Diagnostics.AddError("cannot stop the machine", err.Error())
		return
	}
	if err := r.clean(h, &m, m.KeepData.ValueBool()); err != nil {
		resp.Diagnostics.AddError("cannot delete the machine", err.Error())
	}
}

func (r *machineResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	importPair(ctx, req.ID, "pool", "name", resp)
}

// importPair takes an id of two names.
func importPair(ctx context.Context, id, first, second string, resp *resource.ImportStateResponse) {
	a, b, ok := strings.Cut(id, "/")
	if !ok || a == "" || b == "" || strings.Contains(b, "/") {
		resp.Diagnostics.AddError("cannot import", "The id is "+first+"/"+second+".")
		return
	}
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("id"), id)...)
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(first), a)...)
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(second), b)...)
}
