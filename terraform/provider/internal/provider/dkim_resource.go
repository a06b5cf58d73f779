package provider

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"shoal/terraform/provider/internal/shoal"
)

func matchRoot(name string) path.Expression { return path.MatchRoot(name) }

func filterText(s string) error {
	if len(s) < 3 || len(s) > 4096 || s[0] != '(' || s[len(s)-1] != ')' || strings.Count(s, "(") != strings.Count(s, ")") {
		return fmt.Errorf("write a filter in parentheses, such as %s", wholeDirectory)
	}
	return nil
}

type dkimState struct {
	ID         types.String `tfsdk:"id"`
	Domain     types.String `tfsdk:"domain"`
	Selector   types.String `tfsdk:"selector"`
	Algorithm  types.String `tfsdk:"algorithm"`
	SealTo     types.String `tfsdk:"seal_to"`
	PrivateKey types.String `tfsdk:"private_key_wo"`
	RecordName types.String `tfsdk:"record_name"`
	Record     types.String `tfsdk:"record_value"`
	Protection types.Bool   `tfsdk:"deletion_protection"`
}

func newDkimKey() resource.Resource {
	return &entryResource[dkimState, *dkimState]{name: "dkim_key", scheme: schema.Schema{
		MarkdownDescription: "A key that signs a domain's mail. It is made by the provider in memory, or comes in write-only, and is kept in the directory sealed (RFC 9180) to the key of the role that signs: neither state nor plan has it. What goes into DNS is here. Import: `domain/selector`.",
		Attributes: map[string]schema.Attribute{
			"id":                  idAttribute(),
			"domain":              schema.StringAttribute{Required: true, Validators: domainName, PlanModifiers: replaced(), MarkdownDescription: "The domain; it must be in the directory."},
			"selector":            schema.StringAttribute{Required: true, Validators: matching(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`, "must be a label of DNS in lower case"), PlanModifiers: replaced(), MarkdownDescription: "The selector. For a new key take another one, and let both stand for a while."},
			"algorithm":           schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("rsa2048"), PlanModifiers: replaced(), Validators: []validator.String{stringvalidator.OneOf("rsa2048", "ed25519")}, MarkdownDescription: "`rsa2048` (RFC 6376), or `ed25519` (RFC 8463), which fewer receivers know."},
			"seal_to":             schema.StringAttribute{Required: true, PlanModifiers: replaced(), Validators: []validator.String{rule{"an X25519 public key", func(s string) error { _, err := recipient(s); return err }}}, MarkdownDescription: "X25519 public key of the role that signs: 32 bytes in base64."},
			"private_key_wo":      schema.StringAttribute{Optional: true, WriteOnly: true, Sensitive: true, MarkdownDescription: "Existing private key (PEM, PKCS #8 or PKCS #1), for a selector that DNS has already. Never in plan or state."},
			"record_name":         schema.StringAttribute{Computed: true, PlanModifiers: kept(), MarkdownDescription: "Name of the TXT record: `selector._domainkey.domain`."},
			"record_value":        schema.StringAttribute{Computed: true, PlanModifiers: kept(), MarkdownDescription: "Its value: `v=DKIM1; k=rsa; p=...`."},
			"deletion_protection": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(false), MarkdownDescription: "Refuse plans that destroy it."},
		}}}
}

func (m *dkimState) dn(d *shoal.Directory) string {
	return d.DkimDN(m.Domain.ValueString(), m.Selector.ValueString())
}
func (m *dkimState) protected() bool { return m.Protection.ValueBool() }
func (m *dkimState) named(id string) error {
	domain, selector, ok := strings.Cut(id, "/")
	if !ok {
		return errors.New("the id is domain/selector")
	}
	m.Domain, m.Selector, m.Protection = types.StringValue(domain), types.StringValue(selector), types.BoolValue(false)
	return nil
}

func (m *dkimState) entry(context.Context) (kept, fresh shoal.Entry, diags diag.Diagnostics) {
	return shoal.Entry{"description": {"sealed to " + m.SealTo.ValueString()}},
		shoal.Entry{"objectClass": {"shoalDkimKey"}, "cn": {m.Selector.ValueString()}}, nil
}

func (m *dkimState) take(_ context.Context, _ *shoal.Directory, e shoal.Entry) diag.Diagnostics {
	m.ID = types.StringValue(m.Domain.ValueString() + "/" + m.Selector.ValueString())
	m.RecordName = types.StringValue(m.Selector.ValueString() + "._domainkey." + m.Domain.ValueString())
	m.Record, m.PrivateKey = types.StringValue(e.First("shoalDkimPublicKey")), types.StringNull()
	m.Algorithm = types.StringValue("rsa2048")
	if strings.Contains(e.First("shoalDkimPublicKey"), "k=ed25519") {
		m.Algorithm = types.StringValue("ed25519")
	}
	if to, ok := strings.CutPrefix(e.First("description"), "sealed to "); ok {
		m.SealTo = types.StringValue(to)
	}
	return nil
}

// secrets makes the key, or takes the one that is given, once: for a new entry.
func (m *dkimState) secrets(ctx context.Context, c tfsdk.Config, stored *dkimState) (shoal.Entry, diag.Diagnostics) {
	if stored != nil {
		return nil, nil
	}
	var in dkimState
	diags := c.Get(ctx, &in)
	e, err := dkimEntry(m.Domain.ValueString(), m.Selector.ValueString(), m.Algorithm.ValueString(), m.SealTo.ValueString(), in.PrivateKey.ValueString())
	if err != nil {
		diags.AddError("cannot make the key", err.Error())
	}
	return e, diags
}

// dkimEntry gives the attributes of a key: what DNS has, and the private key sealed. The sealed form is "1 " and base64 of
// HPKE (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM) over the key as PKCS #8, with
// "shoal dkim <domain> <selector>" as info, so that it opens for this domain and selector only.
func dkimEntry(domain, selector, algorithm, sealTo, given string) (shoal.Entry, error) {
	var key crypto.Signer
	var err error
	switch {
	case given != "":
		key, err = parsePrivate(given)
	case algorithm == "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		return nil, err
	}
	var record string
	switch public := key.Public().(type) {
	case ed25519.PublicKey:
		if algorithm != "ed25519" {
			return nil, errors.New("private_key_wo is an Ed25519 key: set algorithm = \"ed25519\"")
		}
		record = "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
	case *rsa.PublicKey:
		if algorithm == "ed25519" {
			return nil, errors.New("private_key_wo is an RSA key: leave algorithm out")
		}
		if public.N.BitLen() < 1024 || public.N.BitLen() > 4096 {
			return nil, errors.New("an RSA key for DKIM has 1024 to 4096 bits (RFC 8301)")
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return nil, err
		}
		record = "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	default:
		return nil, errors.New("private_key_wo must be an RSA or an Ed25519 key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	to, err := recipient(sealTo)
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("shoal dkim "+domain+" "+selector), der)
	if err != nil {
		return nil, err
	}
	return shoal.Entry{"shoalDkimPublicKey": {record}, "shoalDkimSealedKey": {"1 " + base64.StdEncoding.EncodeToString(sealed)}}, nil
}

func recipient(s string) (hpke.PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != 32 {
		return nil, errors.New("write 32 bytes in base64")
	}
	public, err := ecdh.X25519().NewPublicKey(b)
	if err != nil {
		return nil, err
	}
	return hpke.NewDHKEMPublicKey(public)
}

func parsePrivate(text string) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("private_key_wo holds no key in PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("private_key_wo is neither PKCS #8 nor PKCS #1")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("private_key_wo is no key that signs")
	}
	return signer, nil
}
