package "shoal-boxd" {
  section = "mail"
  summary = "mailboxes of a Shoal messaging service (IMAP, POP3, LMTP)"
  description = <<-TEXT
    boxd serves mailboxes over IMAP and POP3 and takes mail from the switches
    over LMTP. Every box serves every mailbox at any moment: mail is on
    volumes which all boxes mount.
  TEXT
  depends    = ["shoal-common (= $version)"]
  recommends = ["nfs-common"]

  program "boxd" {}

  man   = ["boxd.8"]
  units = ["boxd.service"]

  socket "imap" { port = 143 }
  socket "imaps" { port = 993 }
  socket "pop3" { port = 110 }
  socket "pop3s" { port = 995 }
  socket "managesieve" { port = 4190 }
  socket "lmtp" { port = 24 }

  open_ports = [110, 143, 993, 995, 4190]
  peer_ports = [24, 7001, 9143, 9144]

  lintian = ["statically-linked-binary [usr/sbin/boxd]", "hardening-no-pie [usr/sbin/boxd]"]
}
