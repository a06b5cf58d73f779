role "switch" {
  summary  = "SMTP in, submission, delivery, relay"
  packages = ["shoal-switchd", "shoalctl", "nfs-common"]
  mask     = ["rpcbind.service", "rpcbind.socket", "rpc-statd.service", "rpc-statd-notify.service"]
  ports    = [25, 465, 587, 7001, 9025, 9026]
  active   = ["switchd.service"]
  daemons  = ["switchd.service"]
  limit_mb = 170
}
