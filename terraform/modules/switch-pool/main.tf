resource "shoal_server" "this" {
  for_each = var.members

  name = each.key
  role = "switch"

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
        address = length(regexall(":", m.address)) > 0 ? "[${m.address}]:${port}" : "${m.address}:${port}"
      }
    }
  ]])...)
}

resource "shoal_lb_member" "this" {
  for_each = local.places

  agent         = each.value.agent
  pool          = each.value.service
  name          = shoal_server.this[each.value.name].name
  address       = each.value.address
  drain_seconds = var.drain_seconds

  depends_on = [var.after_machines]
}

locals {
  hosts = var.variation == 1 ? { for name in keys(var.members) : name => var.balancers } : { for name in keys(var.members) : name => [var.boxes[var.assigned[name]]] }
}
