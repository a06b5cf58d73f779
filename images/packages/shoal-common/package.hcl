# What every machine of the service has: users, folders, kernel settings, the firewall, first boot.
package "shoal-common" {
  section = "net"
  summary = "common files of the Shoal messaging service"
  description = <<-TEXT
    System users with the same numeric ids on every machine, state folders,
    kernel settings, packet filter, first boot from a NoCloud seed, and the
    signed upgrade.
  TEXT
  depends    = ["systemd (>= 252)", "nftables", "openssh-client", "adduser", "mount", "ca-certificates"]
  recommends = ["chrony", "openssh-server", "e2fsprogs"]
  suggests   = ["prometheus-node-exporter"]

  program "shoal-firstboot" { to = "/usr/lib/shoal/firstboot" }

  man = ["shoal-firstboot.8", "shoal-upgrade.8"]

  # Started by the images only: on a machine with a packet filter of its own the operator decides.
  units    = ["shoal-firstboot.service", "shoal-firewall.service", "shoal-enrol.service", "shoal-sshkeys.service",
    "shoal-announce.service", "shoal-renew.service", "shoal-renew.timer"]
  sysusers = true
  tmpfiles = true

  lintian = [
    "statically-linked-binary [usr/lib/shoal/firstboot]",
    "hardening-no-pie [usr/lib/shoal/firstboot]",
  ]
}
