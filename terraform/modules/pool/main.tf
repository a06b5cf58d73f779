# Servers of one role, whatever the role is: their entries in the directory, and their places in the pools of every balancer.
resource "shoal_server" "this" {
  for_each = var.entries ? var.members : {}

  name = each.key
  role = var.role

  depends_on = [var.after_directory]
}

locals {
  # node/service/member: a key for each place where a member stands, so that one that comes or goes touches no other.
  places = merge(flatten([for node, agent in var.agents : [
    for service, port in var.services : {
      for name, m in var.members : "${node}/${service}/${name}" => {
        agent   = agent
        service = service
        name    = name
        address = strcontains(m.address, ":") ? "[${m.address}]:${port}" : "${m.address}:${port}"
      }
    }
  ]])...)
}

resource "shoal_lb_member" "this" {
  for_each = local.places

  agent         = each.value.agent
  pool          = each.value.service
  name          = var.entries ? shoal_server.this[each.value.name].name : each.value.name
  address       = each.value.address
  backup        = contains(var.backup, each.value.name)
  drain_seconds = var.drain_seconds

  depends_on = [var.after_machines]
}
