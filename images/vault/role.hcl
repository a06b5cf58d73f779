role "vault" {
  summary  = "the directory: master or shadow"
  packages = ["shoal-vaultd", "shoalctl", "shoal-agent"]
  enable   = ["shoal-authority.service", "shoal-agent.service"]
  ports    = [389, 636, 7443, 9145, 9146, 9389, 9390]
  daemons  = ["vaultd.service", "shoal-agent.service"]
  active   = ["vaultd.service", "shoal-authority.service", "shoal-agent.service"]
  limit_mb = 170
}
