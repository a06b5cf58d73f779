resource "shoal_server" "this" {
  for_each = var.nodes

  name      = each.key
  role      = "lb"
  addresses = { control = [each.value.agent] }

  depends_on = [var.after_directory]
}

locals {
  all = merge(var.pools, var.more_pools)
  pools = merge([for node, n in var.nodes : {
    for pool, p in local.all : "${node}/${pool}" => merge(p, { node = node, pool = pool })
  }]...)
}

resource "shoal_lb_pool" "this" {
  for_each = local.pools

  agent          = var.nodes[each.value.node].agent
  name           = each.value.pool
  bind           = [for a in var.nodes[each.value.node].addresses : strcontains(a, ":") ? "[${a}]:${each.value.port}" : "${a}:${each.value.port}"]
  check          = each.value.check
  proxy_protocol = each.value.proxy_protocol
  idle_seconds   = each.value.idle_seconds

  depends_on = [var.after_machines]
}
