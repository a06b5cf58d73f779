{{with .Vault.Authority -}}
# Written by first boot from the machine's seed: changes are lost. The authority for enrolment, beside the directory's master.
server {
  name = "enrol"
}

identity {
  cert_file = "/var/lib/shoal/enrol/server.crt"
  key_file  = "/var/lib/shoal/enrol/server.key"
  ca_file   = "/var/lib/shoal/enrol/ca.crt"
}

# For a look on the machine itself: it has no certificates, and nothing from outside needs it.
management {
  address = "127.0.0.1:9146"
}

control {
  address = ":9145"
}

listener "enrol" {
  address = ":7443"
}

enrolment {
  ca_cert_file  = "/var/lib/shoal/enrol/ca/ca.crt"
  ca_key_file   = "/var/lib/shoal/enrol/ca/ca.key"
  answered_file = "/var/lib/shoal/agent/answered.json"
  advertise     = {{if $.Directory.URIs}}{{list $.Directory.URIs}}{{else}}[{{q (printf "ldaps://%s" (hostport $.Address "636"))}}]{{end}}

  directory {
    uris          = ["ldaps://127.0.0.1:636"]
    suffix        = {{q $.Suffix}}
    bind_dn       = {{q (printf "cn=enrol,ou=servers,ou=config,%s" $.Suffix)}}
    password_file = "/var/lib/shoal/enrol/directory.secret"
  }
}
{{- end}}
