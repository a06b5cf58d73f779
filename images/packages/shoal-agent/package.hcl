package "shoal-agent" {
  section = "admin"
  summary = "agent of a Shoal messaging service (balancers, file servers)"
  description = <<-TEXT
    shoal-agent keeps HAProxy's pools, the exports of a file server, and gives
    certificates to new servers, as operators' tools ask it to over mutually
    authenticated TLS. It knows a fixed set of verbs: no paths and no shell.
  TEXT
  depends = ["shoal-common (= $version)"]

  program "shoal-agent" {}

  man   = ["shoal-agent.8"]
  units = ["shoal-agent.service", "shoal-authority.service"]

  peer_ports = [7443, 9145]

  lintian = ["statically-linked-binary [usr/sbin/shoal-agent]", "hardening-no-pie [usr/sbin/shoal-agent]"]
}
