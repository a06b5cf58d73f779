# every block and every type
server {
  name = "box1"
  user = "shoal-box:shoal"
}

identity {
  cert_file = "box1.crt"
  key_file  = "/etc/shoal/box1.key"
  ca_file   = "sub/../sub/ca.crt"
}

directory {
  uris            = ["ldap://127.0.0.1:389", "ldaps://vault.example.test"]
  bind_dn         = "cn=box1,ou=servers,ou=config,o=shoal"
  password_file   = "good.secret"
  request_timeout = "1s"
}

listener "imap" {
  address         = "127.0.0.1:143"
  proxy_from      = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]
  max_connections = 5
}

listener "imaps" {
  address = "[::]:993"
  tls     = true
}

volume "vol01" {
  path = "/srv/shoal/vol01"
  id   = "abc"
}

public_tls {
  cert_file = "p.crt"
  key_file  = "p.key"
}

log { level = "debug" }
drain { timeout = "90s" }

limits {
  message_size = "50 MB"
  idle         = "1d12h"
  ratio        = 0.25
  headers = {
    "X-A" = "b"
    c     = "d"
  }
}

rule { pattern = "a" }
rule { pattern = "b" }

words = ["three"]
relay = "mail.example.test:25"
