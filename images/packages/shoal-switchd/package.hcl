package "shoal-switchd" {
  section = "mail"
  summary = "mail transfer of a Shoal messaging service (SMTP, submission)"
  description = <<-TEXT
    switchd takes mail in over SMTP, from other servers and from the users of
    the service, hands it to the boxes over LMTP while it still comes in, and
    keeps in a queue what cannot be delivered at once.
  TEXT
  depends    = ["shoal-common (= $version)"]
  recommends = ["nfs-common"]

  program "switchd" {}

  man   = ["switchd.8"]
  units = ["switchd.service"]

  socket "smtp" { port = 25 }
  socket "submission" { port = 587 }
  socket "submissions" { port = 465 }

  open_ports = [25, 465, 587]
  peer_ports = [7001, 9025, 9026]

  lintian = ["statically-linked-binary [usr/sbin/switchd]", "hardening-no-pie [usr/sbin/switchd]"]
}
