package provider

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/kdomanski/iso9660"
)

// Every schema is valid in itself, and every attribute is described.
func TestSchemas(t *testing.T) {
	ctx := context.Background()
	p := &shoalProvider{}
	var ps provider.SchemaResponse
	p.Schema(ctx, provider.SchemaRequest{}, &ps)
	if d := ps.Schema.ValidateImplementation(ctx); d.HasError() {
		t.Error(d)
	}
	for _, f := range p.Resources(ctx) {
		r := f()
		var m resource.MetadataResponse
		var s resource.SchemaResponse
		r.Metadata(ctx, resource.MetadataRequest{ProviderTypeName: "shoal"}, &m)
		r.Schema(ctx, resource.SchemaRequest{}, &s)
		if d := s.Schema.ValidateImplementation(ctx); d.HasError() {
			t.Errorf("%s: %v", m.TypeName, d)
		}
		if _, ok := r.(resource.ResourceWithImportState); !ok {
			t.Errorf("%s cannot be imported", m.TypeName)
		}
		for name, a := range s.Schema.Attributes {
			if a.GetMarkdownDescription() == "" {
				t.Errorf("%s.%s is not described", m.TypeName, name)
			}
			if strings.HasSuffix(name, "_wo") != a.IsWriteOnly() {
				t.Errorf("%s.%s: write-only attributes end in _wo, and no others", m.TypeName, name)
			}
		}
	}
	if err := WriteDocs(t.TempDir()); err != nil {
		t.Error(err)
	}
}

// The seed has the files that a first boot reads, under the names that Linux shows, with secrets laid over settings.
func TestSeed(t *testing.T) {
	iso, err := seedISO("box1", "i-1", `{"shoal": {"role": "box"}, "hostname": "box1"}`, `{"shoal": {"enrol_token": "secret"}}`, `{"version": 2}`)
	if err != nil {
		t.Fatal(err)
	}
	image, err := iso9660.OpenImage(bytes.NewReader(iso))
	if err != nil {
		t.Fatal(err)
	}
	if label, err := image.Label(); err != nil || label != "cidata" {
		t.Errorf("label %q %v", label, err)
	}
	root, err := image.RootDir()
	if err != nil {
		t.Fatal(err)
	}
	children, err := root.GetChildren()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, c := range children {
		var b bytes.Buffer
		if _, err := b.ReadFrom(c.Reader()); err != nil {
			t.Fatal(err)
		}
		found[c.Name()] = b.String()
	}
	body, ok := strings.CutPrefix(found["user-data"], "#cloud-config\n")
	var user struct {
		Hostname string
		Shoal    map[string]string
	}
	if err := json.Unmarshal([]byte(body), &user); !ok || err != nil || user.Hostname != "box1" || user.Shoal["role"] != "box" || user.Shoal["enrol_token"] != "secret" {
		t.Errorf("user-data %q: %v", body, err)
	}
	if !strings.Contains(found["meta-data"], `"instance-id":"i-1"`) || found["network-config"] != `{"version": 2}` {
		t.Errorf("files: %v", found)
	}
	if _, err := seedISO("box1", "i", "{}", `"hunter2"`, ""); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret that is no object: %v", err)
	}
}

// The description for libvirt is well-formed whatever the names are.
func TestDomain(t *testing.T) {
	m := &machineModel{Name: types.StringValue("box1"), DomainType: types.StringValue("qemu"), Memory: types.Int64Value(512), VCPU: types.Int64Value(2),
		Networks: []networkModel{{Network: types.StringValue("a'<b>&"), MAC: types.StringValue("52:54:00:03:00:01")}}}
	text := domainXML(m, "/root.qcow2", "/seed'.iso", "/data.qcow2", true)
	var d described
	if err := xml.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if d.Memory.Value != 512 || d.VCPU != 2 || d.Type != "qemu" || d.Interfaces[0].Source.Network != "a'<b>&" || !strings.Contains(text, "<serial>shoal-data</serial>") {
		t.Errorf("%+v\n%s", d, text)
	}
}

// A DKIM key is opened by the one that it was sealed to, for its domain and selector, and belongs to the record.
func TestDkim(t *testing.T) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	opener, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	to := base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
	for _, algorithm := range []string{"rsa2048", "ed25519"} {
		e, err := dkimEntry("example.test", "s1", algorithm, to, "")
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(e.First("shoalDkimSealedKey"), "1 "))
		if err != nil {
			t.Fatal(err)
		}
		der, err := hpke.Open(opener, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("shoal dkim example.test s1"), sealed)
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if _, err := x509.ParsePKCS8PrivateKey(der); err != nil {
			t.Error(err)
		}
		if _, err := hpke.Open(opener, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("shoal dkim other.test s1"), sealed); err == nil {
			t.Error("it opens for another domain")
		}
		if !strings.HasPrefix(e.First("shoalDkimPublicKey"), "v=DKIM1; k=") || bytes.Contains(sealed, der[:16]) {
			t.Errorf("%s: %v", algorithm, e)
		}
	}
	if _, err := dkimEntry("example.test", "s1", "rsa2048", to, "rubbish"); err == nil || strings.Contains(err.Error(), "rubbish") {
		t.Errorf("a private key that is none: %v", err)
	}
}

// Another file than the one that was meant is refused.
func TestImages(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"good": "QFI\xfbrest", "other": "QFI\xfbchanged", "raw": "MBR..."} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const sum = "b63ceaa3e2bb3dd8d1dcf0d76a60bbde5a4bc4cbb43fbcdd4b2ed9b5e2b45fc1"
	if err := checkImage(filepath.Join(dir, "raw"), sum); err == nil || !strings.Contains(err.Error(), "not an image in qcow2") {
		t.Error(err)
	}
	if err := checkImage(filepath.Join(dir, "other"), sum); err == nil || !strings.Contains(err.Error(), "not the image that was meant") {
		t.Error(err)
	}
	if err := checkImage(filepath.Join(dir, "none"), sum); err == nil {
		t.Error("a file that is not there was taken")
	}
}

func TestClients(t *testing.T) {
	for s, good := range map[string]bool{"10.1.0.0/16": true, "10.1.2.3": true, "2001:db8::/48": true, "2001:db8::1": true, "10.0.0.0/8": false,
		"0.0.0.0/0": false, "::/0": false, "*": false, "box1": false, "10.1.2.3/24": false, "2001:DB8::/48": false, "fe80::1%eth0": false} {
		if err := nfsClient.check(s); (err == nil) != good {
			t.Errorf("%s: %v", s, err)
		}
	}
}
