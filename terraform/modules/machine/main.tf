# The one place where a machine is made. On another hypervisor or cloud replace this module: its variables and outputs are all
# that the others know of.
resource "shoal_machine" "this" {
  count = var.hypervisor == null ? 0 : 1

  name           = var.name
  pool           = var.hypervisor.pool
  domain_type    = var.hypervisor.domain_type
  image          = var.image
  memory_mib     = var.size.memory_mib
  vcpu           = var.size.vcpu
  root_gib       = var.size.root_gib
  data_gib       = var.size.data_gib
  user_data      = jsonencode(var.user_data)
  user_data_wo   = var.user_data_secret
  network_config = var.network_config
  networks       = [{ network = var.hypervisor.network, bridge = var.hypervisor.bridge, mac = var.mac }]
  enrol          = var.enrol
  ready          = var.ready ? { address = length(regexall(":", var.address)) > 0 ? "[${var.address}]:9143" : "${var.address}:9143" } : null
  rolling_group  = var.rolling_group
  drain          = var.drain

  deletion_protection = var.deletion_protection
}
