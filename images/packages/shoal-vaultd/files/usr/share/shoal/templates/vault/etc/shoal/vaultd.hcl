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
{{- if and .Vault.ShadowOf (not .Vault.RootPasswordHash)}}
  # Nobody knows it: until a shadow has the hash of the administrator's password, it is for reading only.
  password_file = "{{.Identity}}/directory.secret"
{{- else}}
  password_file = "/etc/shoal/root.secret"
{{- end}}
}

database {
  path = "/var/lib/shoal/vault/database"
}
{{if .Vault.ShadowOf}}
shadow {
  provider      = {{list .Vault.ShadowOf}}
  password_file = "{{.Identity}}/directory.secret"
}
{{else}}{{with .Credentials}}{{if .DirectoryPassword}}
# For the day on which another one is promoted: this one follows it then.
shadow {
  password_file = "{{$.Identity}}/directory.secret"
}
{{end}}{{end}}{{end}}
listener "ldap" {
  address = ":389"
}

listener "ldaps" {
  address = ":636"
  tls = true
}

