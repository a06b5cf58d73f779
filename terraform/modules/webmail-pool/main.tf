module "pool" {
  source = "../pool"

  role            = "webmail"
  members         = var.members
  agents          = var.agents
  services        = var.services
  drain_seconds   = var.drain_seconds
  after_directory = var.after_directory
  after_machines  = var.after_machines
}

moved {
  from = shoal_server.this
  to   = module.pool.shoal_server.this
}

moved {
  from = shoal_lb_member.this
  to   = module.pool.shoal_lb_member.this
}
