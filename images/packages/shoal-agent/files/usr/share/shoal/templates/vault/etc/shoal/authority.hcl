{{if .Vault.Authority -}}
# Written by first boot from the machine's seed: changes are lost. By this shoal-authority.service makes the entry of the authority.
identity {
  cert_file = "{{.Identity}}/server.crt"
  key_file  = "{{.Identity}}/server.key"
  ca_file   = "{{.Identity}}/ca.crt"
}

directory {
  uris          = ["ldaps://127.0.0.1:636"]
  suffix        = {{q .Suffix}}
  bind_dn       = {{q (printf "cn=admin,%s" .Suffix)}}
  password_file = "/etc/shoal/root.secret"

  # It is the first write to a directory that has just begun.
  request_timeout = "1m"
}
{{- end}}
