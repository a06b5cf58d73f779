# What each machine is told at its first boot. Nothing here depends on how many servers of a role there are, but for the
# balancers that switches deliver to: another box changes no other machine.
locals {
  mail  = { for name, v in module.storage.volumes : name => v if v.kind == "mail" }
  queue = [for name, v in module.storage.volumes : v if v.kind == "queue"]
  common = {
    suffix    = "o=shoal"
    directory = { uris = module.directory.uris }
    balancers = [module.network.blocks["lb"].ipv4, module.network.blocks["lb"].ipv6]
    peers     = module.network.peers
  }
  special = {
    for name, s in local.servers : name => jsonencode(
      s.role == "box" ? { box = {
        hostname = "${name}.${var.domain}"
        address  = local.address[name]
        volumes  = [for v, x in local.mail : { name = v, id = x.id, source = x.source }]
      } } :
      s.role == "switch" ? { switch = {
        hostname = "${name}.${var.domain}"
        lmtp     = module.switches.lmtp[name]
        queue    = length(local.queue) == 0 ? null : { id = local.queue[0].id, source = local.queue[0].source }
      } } :
      s.role == "vault" && name != "vault1" ? { vault = { shadow_of = [module.directory.master_uri] } } :
      s.role == "lb" ? { lb = { addresses = local.lb_addresses[name] } } :
      {}
    )
  }
  places = merge(module.boxes.places, module.switches.places, module.webmail.places, module.provisioning.places)
}

module "machine" {
  source   = "../machine"
  for_each = local.servers

  name           = each.key
  address        = local.address[each.key]
  hypervisor     = var.hypervisor
  image          = lookup(var.images, each.value.role, "")
  size           = { for k, v in each.value.size : k => v if k != "count" }
  mac            = module.network.members[each.key].mac
  network_config = module.network.members[each.key].network_config
  user_data = {
    hostname            = "${each.key}.${var.domain}"
    ssh_authorized_keys = var.authorized_keys
    shoal               = merge(local.common, { role = each.value.role, name = each.key }, jsondecode(local.special[each.key]))
  }
  user_data_secret    = lookup(var.secrets, each.key, null)
  enrol               = var.enrol == null || each.key == "vault1" ? null : { url = var.enrol.url, ca_sha256 = var.enrol.ca_sha256, hosts = ["${each.key}.${var.domain}", local.address[each.key]] }
  rolling_group       = each.value.role
  drain               = lookup(local.places, each.key, [])
  deletion_protection = var.deletion_protection && (each.key == "vault1" || each.value.role == "storage")
}
