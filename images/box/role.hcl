role "box" {
  summary  = "mailboxes over IMAP and POP3, mail in over LMTP"
  packages = ["shoal-boxd", "shoalctl", "nfs-common"]
  mask     = ["rpcbind.service", "rpcbind.socket", "rpc-statd.service", "rpc-statd-notify.service"]
  ports    = [24, 110, 143, 993, 995, 4190]
  daemons  = ["boxd.service"]
  limit_mb = 170
}
