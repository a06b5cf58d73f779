# Written by first boot from the machine's seed: changes are lost.
server {
  name = {{q .Name}}
}

identity {
  cert_file = "{{.Identity}}/server.crt"
  key_file  = "{{.Identity}}/server.key"
  ca_file   = "{{.Identity}}/ca.crt"
}

hostname = {{q .Address}}

management {
  address = ":9025"
}

control {
  address = ":9026"
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

lmtp {
  addresses = {{list .Switch.LMTP}}
}
{{with .Switch.Queue}}
queue {
  path = {{if .Source}}"/srv/shoal/{{.Name}}"{{else}}"/var/lib/shoal/switch/queue"{{end}}
  id   = {{q .ID}}
}
{{end}}
{{- if .Switch.SmartHost}}
outbound {
  smart_host = {{q .Switch.SmartHost}}
}
{{end}}
hints {
  address = {{q (hostport .Address "7001")}}
}

listener "hint" {
  address = ":7001"
}

listener "smtp" {
  address = ":25"
{{- if .Balancers}}
  proxy_from = {{list .Balancers}}
{{- end}}
}

listener "submission" {
  address = ":587"
{{- if .Balancers}}
  proxy_from = {{list .Balancers}}
{{- end}}
}

listener "submissions" {
  address = ":465"
  tls = true
{{- if .Balancers}}
  proxy_from = {{list .Balancers}}
{{- end}}
}

