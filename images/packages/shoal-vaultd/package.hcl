package "shoal-vaultd" {
  section = "net"
  summary = "directory of a Shoal messaging service (LDAP)"
  description = <<-TEXT
    vaultd serves domains, accounts, servers and volumes over LDAP, from a
    database of its own: as the master, or as a shadow that follows it.
  TEXT
  depends = ["shoal-common (= $version)"]

  program "vaultd" {}

  man   = ["vaultd.8"]
  units = ["vaultd.service"]

  socket "ldap" { port = 389 }
  socket "ldaps" { port = 636 }

  peer_ports = [389, 636, 9389, 9390]

  lintian = ["statically-linked-binary [usr/sbin/vaultd]", "hardening-no-pie [usr/sbin/vaultd]"]
}
