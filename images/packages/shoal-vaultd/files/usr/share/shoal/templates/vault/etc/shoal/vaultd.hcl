# Written by first boot from the machine's seed: changes are lost.
server {
  name = {{q .Name}}
}

identity {
  cert_file = "{{.Identity}}/server.crt"
  key_file  = "{{.Identity}}/server.key"
  ca_file   = "{{.Identity}}/ca.crt"
}

suffix = {{q .Suffix}}

management {
  address = ":9389"
}

control {
  address = ":9390"
}

public_tls {
  cert_file = {{q .PublicCrt}}
  key_file  = {{q .PublicKey}}
}

root {
{{- if .Vault.ShadowOf}}
  password_file = "{{.Identity}}/directory.secret"
{{- else}}
  password_file = "/etc/shoal/root.secret"
{{- end}}
}

database {
  path = "/var/lib/shoal/vault/database"
}
{{with .Vault.ShadowOf}}
shadow {
  provider      = {{list .}}
  password_file = "{{$.Identity}}/directory.secret"
}
{{end}}
listener "ldap" {
  address = ":389"
}

listener "ldaps" {
  address = ":636"
  tls = true
}

