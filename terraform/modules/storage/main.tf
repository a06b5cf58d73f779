resource "shoal_server" "this" {
  for_each = var.servers

  name                = each.key
  role                = "storage"
  addresses           = { control = [each.value.agent] }
  deletion_protection = var.deletion_protection

  depends_on = [var.after_directory]
}

locals {
  policies = merge([for name, s in var.servers : {
    "${name}/mail"  = { server = name, name = "mail", clients = var.mail_clients, note = "boxes mount mail" }
    "${name}/queue" = { server = name, name = "queue", clients = var.queue_clients, note = "switches mount queues" }
  }]...)
}

resource "shoal_nfs_export_policy" "this" {
  for_each = local.policies

  agent       = var.servers[each.value.server].agent
  name        = each.value.name
  description = each.value.note

  depends_on = [var.after_machines]
}

resource "shoal_nfs_export_rule" "this" {
  for_each = local.policies

  agent    = shoal_nfs_export_policy.this[each.key].agent
  policy   = shoal_nfs_export_policy.this[each.key].name
  index    = 100
  clients  = each.value.clients
  access   = "rw"
  security = var.security
  squash   = "root"
}

resource "shoal_nfs_volume" "this" {
  for_each = var.volumes

  agent               = var.servers[each.value.server].agent
  name                = each.key
  kind                = each.value.kind
  policy              = shoal_nfs_export_policy.this["${each.value.server}/${each.value.kind}"].name
  on_delete           = var.on_delete
  deletion_protection = var.deletion_protection

  depends_on = [shoal_nfs_export_rule.this]
}
