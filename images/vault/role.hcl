role "vault" {
  summary  = "the directory: master or shadow"
  packages = ["shoal-vaultd", "shoalctl", "shoal-agent"]
  ports    = [389, 636, 9389, 9390]
  daemons  = ["vaultd.service"]
  active   = ["vaultd.service"]
  limit_mb = 170
}
