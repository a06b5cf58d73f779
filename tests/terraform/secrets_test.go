package terraform

import (
	"archive/zip"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/tests/appliance"
)

// What is secret is in no plan, state or log, even if everything is logged: the administrator's password, a shadow's password, a
// private key, a token of enrolment.
func TestSecrets(t *testing.T) {
	r := appliance.New(t)
	s := newStack(t, r)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	// As PKCS #1: the modulus, which is public, is in its first lines.
	private := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	seal, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TF_VAR_password", "planted password of a shadow")
	t.Setenv("TF_VAR_key", private)
	config := fmt.Sprintf(`
variable "password" {
  type      = string
  ephemeral = true
}
variable "key" {
  type      = string
  ephemeral = true
}
resource "shoal_server" "box1" {
  name = "box1"
  role = "box"
}
ephemeral "shoal_enrol_token" "box1" {
  server = shoal_server.box1.id
}
resource "shoal_directory_shadow" "vault2" {
  name                = "vault2"
  master              = ["ldaps://192.0.2.1:636"]
  password_wo         = "${var.password} ${ephemeral.shoal_enrol_token.box1.token}"
  password_wo_version = 1
}
resource "shoal_domain" "example" {
  name = "example.test"
}
resource "shoal_dkim_key" "example" {
  domain         = shoal_domain.example.name
  selector       = "s1"
  seal_to        = %q
  private_key_wo = var.key
}
`, base64.StdEncoding.EncodeToString(seal.PublicKey().Bytes()))
	s.write(config)
	logged := filepath.Join(s.dir, "trace.log")
	t.Setenv("TF_LOG", "TRACE")
	t.Setenv("TF_LOG_PATH", logged)
	said := s.run(0, "plan", "-out=plan", "-input=false") + s.run(0, "show", "-json", "plan") + s.run(0, "apply", "-input=false", "plan") + s.run(0, "plan", "-input=false")
	t.Setenv("TF_LOG", "")
	where := map[string]string{"what was said": said, "the state": s.state()}
	log, err := os.ReadFile(logged)
	if err != nil || !strings.Contains(string(log), "[TRACE]") || !strings.Contains(string(log), "shoal_directory_shadow.vault2") {
		t.Fatalf("the log is not one of everything: %v, %d bytes", err, len(log))
	}
	where["the log"] = string(log)
	plan, err := zip.OpenReader(filepath.Join(s.dir, "plan"))
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	for _, f := range plan.File {
		c, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		where["the plan: "+f.Name] = string(b)
	}
	for what, secret := range map[string]string{"the administrator's password": "rootpassword", "the shadow's password": "planted password", "the token": "shoal1-",
		"the private key": strings.Split(private, "\n")[9]} {
		for place, text := range where {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", what, place)
			}
		}
	}
	t.Setenv("TF_LOG_PATH", "")
	for range 8 { // as many plans as there may be tokens: another can still be made
		s.clean()
	}
	s.run(0, "destroy", "-auto-approve")
}
