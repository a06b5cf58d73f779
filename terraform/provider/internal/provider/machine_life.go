package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"shoal/terraform/provider/internal/shoal"
)

// Names of a machine's volumes.
func (m *machineModel) rootName() string { return m.Name.ValueString() + ".qcow2" }
func (m *machineModel) seedName() string { return m.Name.ValueString() + "-seed.iso" }
func (m *machineModel) dataName() string { return m.Name.ValueString() + "-data.qcow2" }

const gib = 1 << 30

// domainXML describes the machine to libvirt.
func domainXML(m *machineModel, root, seed, data string) string {
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
	p("<memory unit='MiB'>%d</memory><vcpu>%d</vcpu>", m.Memory.ValueInt64(), m.VCPU.ValueInt64())
	p("<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/></features><cpu mode='%s'/>", cpu)
	p("<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>restart</on_crash><devices>")
	disk(root, "vda", "qcow2", "")
	disk(seed, "vdb", "raw", "<readonly/>")
	if data != "" {
		disk(data, "vdc", "qcow2", "<serial>shoal-data</serial>")
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
	d, err := h.l.DomainDefineXML(domainXML(m, paths[0], paths[1], data))
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

// wait asks the management address of the role until it says that it is ready.
func wait(ctx context.Context, m *machineModel) error {
	if m.Ready == nil {
		return nil
	}
	limit := time.Now().Add(time.Duration(m.Ready.Seconds.ValueInt64()) * time.Second)
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	last := errors.New("nothing was asked")
	for time.Now().Before(limit) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Ready.Address.ValueString()+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("it answers %s", res.Status)
		}
		last = err
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("machine %s runs, but is not ready after %d s: %w; its console says more (virsh console %s)",
		m.Name.ValueString(), m.Ready.Seconds.ValueInt64(), last, m.Name.ValueString())
}

// setMembers puts the machine's members of pools into a state; draining waits for their sessions.
func (r *machineResource) setMembers(ctx context.Context, m *machineModel, state string) error {
	if len(m.Drain) == 0 {
		return nil
	}
	a, err := r.c.agents()
	if err != nil {
		return err
	}
	for _, d := range m.Drain {
		path := "/v1/lb/pools/" + d.Pool.ValueString() + "/members/" + d.Member.ValueString()
		var j memberJSON
		if _, err := a.Do(ctx, d.Agent.ValueString(), http.MethodGet, path, nil, &j); err != nil {
			if errors.Is(err, shoal.ErrNotFound) {
				continue
			}
			return err
		}
		j.State, j.Drift = state, ""
		if _, err := a.Do(ctx, d.Agent.ValueString(), http.MethodPut, path, j, nil); err != nil {
			return err
		}
	}
	if state != "drain" {
		return nil
	}
	for limit := time.Now().Add(time.Duration(m.DrainSeconds.ValueInt64()) * time.Second); time.Now().Before(limit); {
		sessions := 0
		for _, d := range m.Drain {
			var j struct{ Sessions int }
			path := "/v1/lb/pools/" + d.Pool.ValueString() + "/members/" + d.Member.ValueString()
			if _, err := a.Do(ctx, d.Agent.ValueString(), http.MethodGet, path, nil, &j); err != nil && !errors.Is(err, shoal.ErrNotFound) {
				return err
			}
			sessions += j.Sessions
		}
		if sessions == 0 {
			return nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
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
	if err := start(h, m.Name.ValueString()); err != nil {
		resp.Diagnostics.AddError("cannot start the machine", err.Error())
		return
	}
	if err := wait(ctx, &m); err != nil {
		resp.Diagnostics.AddError("the machine is not ready", err.Error())
	}
}

// described is what is read of a domain.
type described struct {
	Memory struct {
		Unit  string `xml:"unit,attr"`
		Value int64  `xml:",chardata"`
	} `xml:"memory"`
	VCPU       int64  `xml:"vcpu"`
	Type       string `xml:"type,attr"`
	Interfaces []struct {
		Source struct {
			Network string `xml:"network,attr"`
			Bridge  string `xml:"bridge,attr"`
		} `xml:"source"`
		MAC struct {
			Address string `xml:"address,attr"`
		} `xml:"mac"`
	} `xml:"devices>interface"`
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

// read takes from libvirt what may have drifted.
func (m *machineModel) read(h *hypervisor, d libvirt.Domain) error {
	text, err := h.l.DomainGetXMLDesc(d, libvirt.DomainXMLInactive)
	if err != nil {
		return err
	}
	var x described
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		return fmt.Errorf("libvirt's description: %w", err)
	}
	mib := x.Memory.Value / 1024 // libvirt tells KiB
	m.Memory, m.VCPU, m.DomainType = types.Int64Value(mib), types.Int64Value(x.VCPU), types.StringValue(x.Type)
	m.Networks = nil
	for _, i := range x.Interfaces {
		m.Networks = append(m.Networks, networkModel{maybe(i.Source.Network), maybe(i.Source.Bridge), types.StringValue(i.MAC.Address)})
	}
	root, found, err := h.volume(m.Pool.ValueString(), m.rootName())
	if err != nil || !found {
		return err
	}
	if text, err = h.l.StorageVolGetXMLDesc(root, 0); err != nil {
		return err
	}
	var v struct {
		Capacity int64 `xml:"capacity"`
		Backing  struct {
			Path string `xml:"path"`
		} `xml:"backingStore"`
	}
	if err := xml.Unmarshal([]byte(text), &v); err != nil {
		return fmt.Errorf("libvirt's description: %w", err)
	}
	m.Image, m.RootGiB = types.StringValue(v.Backing.Path), types.Int64Value(v.Capacity/gib)
	m.UserDataWO = types.StringNull()
	return nil
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
	rebuild, restart := rebuilds(&state, &plan), restarts(&state, &plan)
	if rebuild || restart {
		defer r.c.roll(plan.RollingGroup.ValueString())()
		if err := r.again(ctx, h, &plan, rebuild, in.UserDataWO.ValueString()); err != nil {
			resp.Diagnostics.AddError("cannot change machine "+plan.Name.ValueString(), err.Error()+
				"\n\nIts members stay drained until it is ready: apply again when the cause is mended.")
			return
		}
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &plan)...)
}

// again drains, stops, makes anew or defines anew, starts, waits, and lets clients in again.
func (r *machineResource) again(ctx context.Context, h *hypervisor, m *machineModel, rebuild bool, secret string) error {
	if err := r.setMembers(ctx, m, "drain"); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	d, err := h.l.DomainLookupByName(m.Name.ValueString())
	if err == nil {
		err = h.stop(d, time.Minute)
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
	if err := start(h, m.Name.ValueString()); err != nil {
		return err
	}
	if err := wait(ctx, m); err != nil {
		return err
	}
	return r.setMembers(ctx, m, "ready")
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
		err = h.stop(d, time.Minute)
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
