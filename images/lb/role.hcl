role "lb" {
  summary  = "HAProxy and keepalived before the servers"
  packages = ["haproxy", "keepalived", "shoalctl", "shoal-agent"]
  enable   = ["haproxy.service", "keepalived.service", "shoal-agent.service"]
  ports    = [8405, 9145, 9146]
  daemons  = ["shoal-agent.service"]
  active   = ["haproxy.service", "shoal-agent.service"]
  limit_mb = 170
}
