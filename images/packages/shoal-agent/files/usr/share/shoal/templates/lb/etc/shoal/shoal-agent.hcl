# Written by first boot from the machine's seed: changes are lost.
server {
  name = {{q .Name}}
}

identity {
  cert_file = "{{.Identity}}/server.crt"
  key_file  = "{{.Identity}}/server.key"
  ca_file   = "{{.Identity}}/ca.crt"
}

# For a look on the machine itself: it has no certificates, and nothing from outside needs it.
management {
  address = "127.0.0.1:9146"
}

control {
  address = ":9145"
}

haproxy {
  # A reload takes a while where the processor is slow.
  timeout = "1m"

  state  = "/var/lib/shoal/agent"
  base   = "/etc/haproxy/haproxy.cfg"
  pools  = "/var/lib/shoal/agent/pools.cfg"
  socket = "/run/haproxy/admin.sock"
  master = "/run/haproxy-master.sock"
}
