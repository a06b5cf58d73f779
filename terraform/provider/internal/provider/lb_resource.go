package provider

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"shoal/terraform/provider/internal/shoal"
)

func agentAttribute() schema.Attribute {
	return schema.StringAttribute{Required: true, Validators: hostPort, PlanModifiers: replaced(), MarkdownDescription: "The agent: `host:port` of its API."}
}

func idAttribute() schema.Attribute {
	return schema.StringAttribute{Computed: true, PlanModifiers: kept(), MarkdownDescription: "As for import."}
}

type lbPool struct {
	ID          types.String `tfsdk:"id"`
	Agent       types.String `tfsdk:"agent"`
	Name        types.String `tfsdk:"name"`
	Bind        types.List   `tfsdk:"bind"`
	Check       types.String `tfsdk:"check"`
	Balance     types.String `tfsdk:"balance"`
	Proxy       types.Bool   `tfsdk:"proxy_protocol"`
	IdleSeconds types.Int64  `tfsdk:"idle_seconds"`
}

func newLBPool() resource.Resource {
	return &agentResource[lbPool, *lbPool]{name: "lb_pool", scheme: schema.Schema{
		MarkdownDescription: "A service at a balancer: where it listens, and how connections are shared among its members. Import: `host:port/pool`.",
		Attributes: map[string]schema.Attribute{
			"id": idAttribute(), "agent": agentAttribute(),
			"name":           schema.StringAttribute{Required: true, Validators: thingName, PlanModifiers: replaced(), MarkdownDescription: "Name of the pool: `imap`, `smtp` ..."},
			"bind":           schema.ListAttribute{Required: true, ElementType: types.StringType, MarkdownDescription: "Addresses that it listens on: `192.0.2.10:143`, `[2001:db8::10]:143`.", Validators: []validator.List{listvalidator.SizeBetween(1, 16), listvalidator.ValueStringsAre(addressPort...)}},
			"check":          schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("tcp"), MarkdownDescription: "How members are checked: `tcp`, `smtp`, `lmtp`, `imap`, `pop3`, `managesieve`, `ldap`.", Validators: []validator.String{stringvalidator.OneOf("tcp", "smtp", "lmtp", "imap", "pop3", "managesieve", "ldap")}},
			"balance":        schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("leastconn"), MarkdownDescription: "`leastconn`, `roundrobin` or `source`.", Validators: []validator.String{stringvalidator.OneOf("leastconn", "roundrobin", "source")}},
			"proxy_protocol": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(false), MarkdownDescription: "Members are told the client's address by PROXY protocol v2."},
			"idle_seconds":   schema.Int64Attribute{Optional: true, Computed: true, Default: int64default.StaticInt64(2100), MarkdownDescription: "How long either side may be silent; IMAP needs 31 minutes at least.", Validators: []validator.Int64{int64validator.Between(1, 86400)}},
		}}}
}

func (m *lbPool) where() (string, string) {
	return m.Agent.ValueString(), "/v1/lb/pools/" + m.Name.ValueString()
}
func (m *lbPool) protected() bool { return false }
func (m *lbPool) named(id string) error {
	f, err := importID(id, 1)
	if err == nil {
		m.Agent, m.Name = types.StringValue(f[0]), types.StringValue(f[1])
	}
	return err
}

type poolJSON struct {
	Bind    []string `json:"bind"`
	Check   string   `json:"check"`
	Balance string   `json:"balance"`
	Proxy   bool     `json:"proxy_protocol"`
	Idle    int64    `json:"idle_seconds"`
}

func (m *lbPool) request(ctx context.Context) (any, diag.Diagnostics) {
	var d diag.Diagnostics
	return poolJSON{strs(ctx, m.Bind, &d), m.Check.ValueString(), m.Balance.ValueString(), m.Proxy.ValueBool(), m.IdleSeconds.ValueInt64()}, d
}

func (m *lbPool) take(ctx context.Context, raw func(any) error) (d diag.Diagnostics) {
	var j poolJSON
	if err := raw(&j); err != nil {
		return unreadable(err)
	}
	m.Bind, m.Check, m.Balance = listOf(ctx, j.Bind, &d), types.StringValue(j.Check), types.StringValue(j.Balance)
	m.Proxy, m.IdleSeconds = types.BoolValue(j.Proxy), types.Int64Value(j.Idle)
	m.ID = types.StringValue(m.Agent.ValueString() + "/" + m.Name.ValueString())
	return d
}

type lbMember struct {
	ID           types.String `tfsdk:"id"`
	Agent        types.String `tfsdk:"agent"`
	Pool         types.String `tfsdk:"pool"`
	Name         types.String `tfsdk:"name"`
	Address      types.String `tfsdk:"address"`
	CheckPort    types.Int64  `tfsdk:"check_port"`
	Weight       types.Int64  `tfsdk:"weight"`
	Backup       types.Bool   `tfsdk:"backup"`
	State        types.String `tfsdk:"state"`
	DrainSeconds types.Int64  `tfsdk:"drain_seconds"`
}

func newLBMember() resource.Resource {
	return &agentResource[lbMember, *lbMember]{name: "lb_member", remove: removeMember, scheme: schema.Schema{
		MarkdownDescription: "A server of a pool. It comes and goes over HAProxy's runtime socket, without a reload; one that is removed is drained first. Import: `host:port/pool/member`.",
		Attributes: map[string]schema.Attribute{
			"id": idAttribute(), "agent": agentAttribute(),
			"pool":          schema.StringAttribute{Required: true, Validators: thingName, PlanModifiers: replaced(), MarkdownDescription: "Name of the pool."},
			"name":          schema.StringAttribute{Required: true, Validators: thingName, PlanModifiers: replaced(), MarkdownDescription: "Name of the server."},
			"address":       schema.StringAttribute{Required: true, Validators: addressPort, MarkdownDescription: "Address and port at which it serves."},
			"check_port":    schema.Int64Attribute{Optional: true, Computed: true, Default: int64default.StaticInt64(0), MarkdownDescription: "Port at which it is checked; 0: that of `address`.", Validators: []validator.Int64{int64validator.Between(0, 65535)}},
			"weight":        schema.Int64Attribute{Optional: true, Computed: true, Default: int64default.StaticInt64(100), MarkdownDescription: "Its share, among the weights of the others.", Validators: []validator.Int64{int64validator.Between(1, 256)}},
			"backup":        schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(false), MarkdownDescription: "It gets connections only when no other is up."},
			"state":         schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("ready"), MarkdownDescription: "`ready`; `drain`: nothing new; `maint`: nothing.", Validators: []validator.String{stringvalidator.OneOf("ready", "drain", "maint")}},
			"drain_seconds": schema.Int64Attribute{Optional: true, Computed: true, Default: int64default.StaticInt64(300), MarkdownDescription: "When it is removed: how long its sessions may go on before they are cut.", Validators: []validator.Int64{int64validator.Between(0, 86400)}},
		}}}
}

func (m *lbMember) where() (string, string) {
	return m.Agent.ValueString(), "/v1/lb/pools/" + m.Pool.ValueString() + "/members/" + m.Name.ValueString()
}
func (m *lbMember) protected() bool { return false }
func (m *lbMember) named(id string) error {
	f, err := importID(id, 2)
	if err == nil {
		m.Agent, m.Pool, m.Name = types.StringValue(f[0]), types.StringValue(f[1]), types.StringValue(f[2])
		m.DrainSeconds = types.Int64Value(300)
	}
	return err
}

type memberJSON struct {
	Address   string `json:"address"`
	CheckPort int64  `json:"check_port"`
	Weight    int64  `json:"weight"`
	Backup    bool   `json:"backup"`
	State     string `json:"state"`
	Drift     string `json:"drift,omitempty"`
}

func (m *lbMember) request(context.Context) (any, diag.Diagnostics) {
	return memberJSON{m.Address.ValueString(), m.CheckPort.ValueInt64(), m.Weight.ValueInt64(), m.Backup.ValueBool(), m.State.ValueString(), ""}, nil
}

func (m *lbMember) take(ctx context.Context, raw func(any) error) (d diag.Diagnostics) {
	var j memberJSON
	if err := raw(&j); err != nil {
		return unreadable(err)
	}
	m.Address, m.CheckPort, m.Weight = types.StringValue(j.Address), types.Int64Value(j.CheckPort), types.Int64Value(j.Weight)
	m.Backup, m.State = types.BoolValue(j.Backup), types.StringValue(j.State)
	if drifted(ctx, j.Drift) { // what HAProxy has is not what the agent was asked for: the next apply sets it right
		m.State = types.StringValue("drifted: " + j.Drift)
	}
	m.ID = types.StringValue(strings.Join([]string{m.Agent.ValueString(), m.Pool.ValueString(), m.Name.ValueString()}, "/"))
	return d
}

// removeMember asks until its sessions have ended or the time for that has.
func removeMember(ctx context.Context, a *shoal.Agents, m *lbMember) error {
	agent, path := m.where()
	limit := time.Now().Add(time.Duration(m.DrainSeconds.ValueInt64()) * time.Second)
	pause := 100 * time.Millisecond
	for {
		query := ""
		if !time.Now().Before(limit) {
			query = "?force=true"
		}
		status, err := a.Do(ctx, agent, http.MethodDelete, path+query, nil, nil)
		if err != nil || status != http.StatusAccepted {
			return err
		}
		if query != "" && time.Now().After(limit.Add(time.Minute)) {
			return fmt.Errorf("its sessions do not end, though they were cut")
		}
		select {
		case <-time.After(min(pause, max(time.Until(limit), 100*time.Millisecond))):
			pause = min(2*pause, 2*time.Second)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
