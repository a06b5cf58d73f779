# The one place where a machine is made. On another hypervisor or cloud replace this module: its variables and outputs are all
# that the others know of.
resource "shoal_machine" "this" {
  count = var.hypervisor == null ? 0 : 1

  name           = var.machine.name
  pool           = var.hypervisor.pool
  domain_type    = var.hypervisor.domain_type
  image          = var.machine.image
  memory_mib     = var.machine.size.memory_mib
  vcpu           = var.machine.size.vcpu
  root_gib       = var.machine.size.root_gib
  data_gib       = var.machine.size.data_gib
  keep_data      = var.machine.keep_data
  user_data      = jsonencode(var.user_data)
  user_data_wo   = var.user_data_secret
  network_config = var.machine.network_config
  networks       = [{ network = var.hypervisor.network, bridge = var.hypervisor.bridge, mac = var.machine.mac }]
  enrol          = var.enrol
  rolling_group  = var.machine.rolling_group
  drain          = var.drain
  ready = var.machine.control_port == null ? null : {
    address = "${strcontains(var.machine.address, ":") ? "[${var.machine.address}]" : var.machine.address}:${var.machine.control_port}"
    seconds = var.machine.ready_seconds
  }

  deletion_protection = var.deletion_protection
}
