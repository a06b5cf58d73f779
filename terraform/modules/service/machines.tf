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
  special = merge(
    { for name in keys(local.servers) : name => "{}" },
    { for name in local.of.box : name => jsonencode({ box = {
      hostname = "${name}.${var.domain}"
      address  = local.address[name]
      volumes  = [for v, x in local.mail : { name = v, id = x.id, source = x.source }]
    } }) },
    { for name in local.of.switch : name => jsonencode({ switch = {
      hostname = "${name}.${var.domain}"
      lmtp     = module.switches.lmtp[name]
      queue    = length(local.queue) == 0 ? null : { id = local.queue[0].id, source = local.queue[0].source }
    } }) },
    { for name in local.of.vault : name => jsonencode({ vault = { shadow_of = [module.directory.master_uri] } }) if name != "vault1" },
  )
  ids    = merge(module.storage.ids, module.directory.ids, module.loadbalancer.ids, module.boxes.ids, module.switches.ids, module.webmail.ids, module.provisioning.ids)
  places = merge(module.boxes.places, module.switches.places, module.webmail.places, module.provisioning.places)

  user_data = { for name, s in local.servers : name => {
    hostname            = "${name}.${var.domain}"
    ssh_authorized_keys = var.authorized_keys
    shoal               = merge(local.common, { role = s.role, name = name }, jsondecode(local.special[name]))
  } }
  sizes = { for name, s in local.servers : name => { for k, v in s.size : k => v if k != "count" } }
}

# The machines come in three steps: the directory's master, to which entries are written; then those with agents, which pools
# and volumes are asked of; then the rest. On the way down the order is the other way round: members are drained while their
# machines still serve.

module "master" {
  source = "../machine"

  name             = "vault1"
  address          = local.address["vault1"]
  hypervisor       = var.hypervisor
  image            = lookup(var.images, "vault", "")
  size             = local.sizes["vault1"]
  mac              = module.network.members["vault1"].mac
  network_config   = module.network.members["vault1"].network_config
  user_data_secret = lookup(var.secrets, "vault1", null)
  rolling_group    = "vault"
  user_data = {
    hostname            = "vault1.${var.domain}"
    ssh_authorized_keys = var.authorized_keys
    shoal               = { role = "vault", name = "vault1", suffix = "o=shoal", peers = module.network.peers }
  }
  deletion_protection = var.deletion_protection
}

module "first" {
  source   = "../machine"
  for_each = { for name, s in local.servers : name => s if contains(["lb", "storage"], s.role) }

  name             = each.key
  address          = local.address[each.key]
  hypervisor       = var.hypervisor
  image            = lookup(var.images, each.value.role, "")
  size             = local.sizes[each.key]
  mac              = module.network.members[each.key].mac
  network_config   = module.network.members[each.key].network_config
  user_data_secret = lookup(var.secrets, each.key, null)
  rolling_group    = each.value.role
  user_data = {
    hostname            = "${each.key}.${var.domain}"
    ssh_authorized_keys = var.authorized_keys
    shoal = merge(
      { role = each.value.role, name = each.key, suffix = "o=shoal", peers = module.network.peers },
      each.value.role == "lb" ? { lb = { addresses = local.lb_addresses[each.key] } } : {},
    )
  }
  enrol               = var.enrol == null ? null : { server = merge(module.storage.ids, module.loadbalancer.ids)[each.key], url = var.enrol.url, ca_sha256 = var.enrol.ca_sha256, hosts = ["${each.key}.${var.domain}", local.address[each.key]] }
  deletion_protection = var.deletion_protection && each.value.role == "storage"
}

module "rest" {
  source   = "../machine"
  for_each = { for name, s in local.servers : name => s if !contains(["lb", "storage"], s.role) && name != "vault1" }

  name             = each.key
  address          = local.address[each.key]
  hypervisor       = var.hypervisor
  image            = lookup(var.images, each.value.role, "")
  size             = local.sizes[each.key]
  mac              = module.network.members[each.key].mac
  network_config   = module.network.members[each.key].network_config
  user_data_secret = lookup(var.secrets, each.key, null)
  rolling_group    = each.value.role
  user_data        = local.user_data[each.key]
  enrol            = var.enrol == null ? null : { server = local.ids[each.key], url = var.enrol.url, ca_sha256 = var.enrol.ca_sha256, hosts = ["${each.key}.${var.domain}", local.address[each.key]] }
  drain            = lookup(local.places, each.key, [])
}
