# Written by first boot from the machine's seed: changes are lost.
server {
  name = {{q .Name}}
}

identity {
  cert_file = "{{.Identity}}/server.crt"
  key_file  = "{{.Identity}}/server.key"
  ca_file   = "{{.Identity}}/ca.crt"
}

management {
  address = ":9143"
}

control {
  address = ":9144"
}

public_tls {
  cert_file = {{q .PublicCrt}}
  key_file  = {{q .PublicKey}}
}

directory {
  uris          = {{list .Directory.URIs}}
  suffix        = {{q .Suffix}}
  bind_dn       = {{if .Directory.BindDN}}{{q .Directory.BindDN}}{{else}}{{q (printf "cn=%s,ou=servers,ou=config,%s" .Name .Suffix)}}{{end}}
  password_file = "{{.Identity}}/directory.secret"
}

{{- range .Box.Volumes}}
volume {{q .Name}} {
  path = "/srv/shoal/{{.Name}}"
  id   = {{q .ID}}
}
{{end}}
hints {
  address = {{q (hostport .Address "7001")}}
}

listener "imap" {
  address = ":143"
{{- if .Balancers}}
  proxy_from = {{list .Balancers}}
{{- end}}
}

listener "imaps" {
  address = ":993"
  tls = true
{{- if .Balancers}}
  proxy_from = {{list .Balancers}}
{{- end}}
}

listener "pop3" {
  address = ":110"
{{- if .Balancers}}
  proxy_from = {{list .Balancers}}
{{- end}}
}

listener "pop3s" {
  address = ":995"
  tls = true
{{- if .Balancers}}
  proxy_from = {{list .Balancers}}
{{- end}}
}

listener "managesieve" {
  address = ":4190"
{{- if .Balancers}}
  proxy_from = {{list .Balancers}}
{{- end}}
}

listener "lmtp" {
  address = ":24"
}

listener "hint" {
  address = ":7001"
}

