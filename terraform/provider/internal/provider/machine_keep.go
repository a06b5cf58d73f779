package provider

import (
	"encoding/json"
	"encoding/xml"
	"fmt"

	"github.com/digitalocean/go-libvirt"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// What libvirt does not know of a machine is kept as metadata of its domain, so that an import, and another operator's
// state, find the machine as it was described: one element <machine xmlns="urn:shoal:machine:1"> whose text is this struct in
// JSON. Nothing in it is a secret: the seed's secrets are in the seed only.
type keptSettings struct {
	UserData      string      `json:"user_data"`
	NetworkConfig *string     `json:"network_config,omitempty"`
	Enrol         *keptEnrol  `json:"enrol,omitempty"`
	Ready         *keptReady  `json:"ready,omitempty"`
	RollingGroup  *string     `json:"rolling_group,omitempty"`
	Drain         []keptDrain `json:"drain"` // null is another value than an empty list
	DrainSeconds  int64       `json:"drain_seconds"`
	StopSeconds   int64       `json:"stop_seconds"`
	KeepData      bool        `json:"keep_data"`
	Protection    bool        `json:"deletion_protection"`
	// Unfinished: it was (re)built or restarted and has not been ready since.
	Unfinished bool `json:"unfinished"`
}

type keptEnrol struct {
	Server string   `json:"server"`
	URL    string   `json:"url"`
	SHA256 string   `json:"ca_sha256"`
	Hosts  []string `json:"hosts"`
}

type keptReady struct {
	Address string `json:"address"`
	Seconds int64  `json:"seconds"`
}

type keptDrain struct {
	Agent  string `json:"agent"`
	Pool   string `json:"pool"`
	Member string `json:"member"`
}

const keptSpace = "urn:shoal:machine:1"

func optional(s types.String) *string { return s.ValueStringPointer() }

// kept is the metadata of a machine.
func (m *machineModel) kept(unfinished bool) string {
	k := keptSettings{UserData: m.UserData.ValueString(), NetworkConfig: optional(m.NetworkConfig), RollingGroup: optional(m.RollingGroup),
		DrainSeconds: m.DrainSeconds.ValueInt64(), StopSeconds: m.StopSeconds.ValueInt64(), KeepData: m.KeepData.ValueBool(),
		Protection: m.Protection.ValueBool(), Unfinished: unfinished}
	if e := m.Enrol; e != nil {
		k.Enrol = &keptEnrol{Server: e.Server.ValueString(), URL: e.URL.ValueString(), SHA256: e.SHA256.ValueString()}
		if e.Hosts != nil {
			k.Enrol.Hosts = []string{}
		}
		for _, h := range e.Hosts {
			k.Enrol.Hosts = append(k.Enrol.Hosts, h.ValueString())
		}
	}
	if m.Ready != nil {
		k.Ready = &keptReady{m.Ready.Address.ValueString(), m.Ready.Seconds.ValueInt64()}
	}
	if m.Drain != nil {
		k.Drain = []keptDrain{}
	}
	for _, d := range m.Drain {
		k.Drain = append(k.Drain, keptDrain{d.Agent.ValueString(), d.Pool.ValueString(), d.Member.ValueString()})
	}
	text, err := json.Marshal(k)
	if err != nil { // strings, numbers and lists of them
		panic(err)
	}
	return "<machine xmlns='" + keptSpace + "'>" + escape(string(text)) + "</machine>"
}

// takeKept is the reverse. A domain without metadata was made by somebody else: what the state says stays.
func (m *machineModel) takeKept(text string) (unfinished bool, err error) {
	if text == "" {
		return false, nil
	}
	var k keptSettings
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		return false, fmt.Errorf("the metadata of machine %s: %w", m.Name.ValueString(), err)
	}
	m.UserData, m.NetworkConfig, m.RollingGroup = types.StringValue(k.UserData), types.StringPointerValue(k.NetworkConfig), types.StringPointerValue(k.RollingGroup)
	m.DrainSeconds, m.StopSeconds = types.Int64Value(k.DrainSeconds), types.Int64Value(k.StopSeconds)
	m.KeepData, m.Protection = types.BoolValue(k.KeepData), types.BoolValue(k.Protection)
	m.Enrol, m.Ready, m.Drain = nil, nil, nil
	if e := k.Enrol; e != nil {
		m.Enrol = &enrolModel{Server: types.StringValue(e.Server), URL: types.StringValue(e.URL), SHA256: types.StringValue(e.SHA256)}
		if e.Hosts != nil {
			m.Enrol.Hosts = []types.String{}
		}
		for _, h := range e.Hosts {
			m.Enrol.Hosts = append(m.Enrol.Hosts, types.StringValue(h))
		}
	}
	if k.Ready != nil {
		m.Ready = &readyModel{types.StringValue(k.Ready.Address), types.Int64Value(k.Ready.Seconds)}
	}
	if k.Drain != nil {
		m.Drain = []drainModel{}
	}
	for _, d := range k.Drain {
		m.Drain = append(m.Drain, drainModel{types.StringValue(d.Agent), types.StringValue(d.Pool), types.StringValue(d.Member)})
	}
	return k.Unfinished, nil
}

// keep writes the metadata of a domain that is defined already.
func (h *hypervisor) keep(m *machineModel, unfinished bool) error {
	d, err := h.l.DomainLookupByName(m.Name.ValueString())
	if err == nil {
		err = h.l.DomainSetMetadata(d, int32(libvirt.DomainMetadataElement), libvirt.OptString{m.kept(unfinished)}, libvirt.OptString{"shoal"}, libvirt.OptString{keptSpace}, libvirt.DomainAffectConfig)
	}
	if err != nil {
		return fmt.Errorf("metadata of machine %s: %w", m.Name.ValueString(), err)
	}
	return nil
}

// described is what is read of a domain.
type described struct {
	Memory struct {
		Unit  string `xml:"unit,attr"`
		Value int64  `xml:",chardata"`
	} `xml:"memory"`
	VCPU       int64  `xml:"vcpu"`
	Type       string `xml:"type,attr"`
	Kept       string `xml:"metadata>machine"`
	Interfaces []struct {
		Source struct {
			Network string `xml:"network,attr"`
			Bridge  string `xml:"bridge,attr"`
		} `xml:"source"`
		MAC struct {
			Address string `xml:"address,attr"`
		} `xml:"mac"`
	} `xml:"devices>interface"`
	Disks []struct {
		Target struct {
			Dev string `xml:"dev,attr"`
		} `xml:"target"`
	} `xml:"devices>disk"`
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
	unfinished, err := m.takeKept(x.Kept)
	if err != nil {
		return err
	}
	state, _, err := h.l.DomainGetState(d, 0)
	if err != nil {
		return err
	}
	m.Running = types.BoolValue(state == domainRunning)
	mib := x.Memory.Value / 1024 // libvirt tells KiB
	m.Memory, m.VCPU, m.DomainType = types.Int64Value(mib), types.Int64Value(x.VCPU), types.StringValue(x.Type)
	m.Networks = nil
	for _, i := range x.Interfaces {
		m.Networks = append(m.Networks, networkModel{maybe(i.Source.Network), maybe(i.Source.Bridge), types.StringValue(i.MAC.Address)})
	}
	data := types.Int64Value(0)
	for _, disk := range x.Disks {
		if disk.Target.Dev == dataDevice {
			v, found, err := h.volume(m.Pool.ValueString(), m.dataName())
			if err != nil {
				return err
			}
			if found {
				_, capacity, _, err := h.l.StorageVolGetInfo(v)
				if err != nil {
					return err
				}
				data = types.Int64Value(int64(capacity / gib))
			}
		}
	}
	m.DataGiB = data
	m.UserDataWO = types.StringNull()
	root, found, err := h.volume(m.Pool.ValueString(), m.rootName())
	if err != nil {
		return err
	}
	if !found {
		m.Image = types.StringValue("drifted: its root disk is gone")
		return nil
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
	if unfinished {
		m.Image = types.StringValue("unfinished: it was not ready after its last start")
	}
	return nil
}

// fits refuses what cannot be before anything is stopped or made: an image that is not there, a disk smaller than its
// image, more memory than the hypervisor has.
func (h *hypervisor) fits(m *machineModel) error {
	_, memory, _, _, _, _, _, _, err := h.l.NodeGetInfo()
	if err != nil {
		return err
	}
	if have := int64(memory / 1024); m.Memory.ValueInt64() > have {
		return fmt.Errorf("machine %s: memory_mib = %d, and the hypervisor has %d", m.Name.ValueString(), m.Memory.ValueInt64(), have)
	}
	if _, err := h.l.StoragePoolLookupByName(m.Pool.ValueString()); err != nil {
		return fmt.Errorf("machine %s: the hypervisor has no storage pool %s that it can use: %w", m.Name.ValueString(), m.Pool.ValueString(), err)
	}
	if m.Image.IsUnknown() {
		return nil
	}
	v, err := h.l.StorageVolLookupByPath(m.Image.ValueString())
	if absent(err) { // it may be newer than what the pools know
		h.refresh()
		v, err = h.l.StorageVolLookupByPath(m.Image.ValueString())
	}
	if err != nil {
		return fmt.Errorf("machine %s: no storage pool of the hypervisor has the image %s", m.Name.ValueString(), m.Image.ValueString())
	}
	text, err := h.l.StorageVolGetXMLDesc(v, 0)
	if err != nil {
		return err
	}
	var x struct {
		Capacity uint64 `xml:"capacity"`
		Format   struct {
			Type string `xml:"type,attr"`
		} `xml:"target>format"`
	}
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		return fmt.Errorf("libvirt's description: %w", err)
	}
	switch {
	case x.Format.Type != "qcow2":
		return fmt.Errorf("machine %s: %s is no image in qcow2 format, but %s", m.Name.ValueString(), m.Image.ValueString(), x.Format.Type)
	case x.Capacity > uint64(m.RootGiB.ValueInt64())*gib:
		return fmt.Errorf("machine %s: root_gib = %d is less than the %.1f GiB of its image", m.Name.ValueString(), m.RootGiB.ValueInt64(), float64(x.Capacity)/gib)
	}
	return nil
}
