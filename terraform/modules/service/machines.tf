# What each machine is made of and told at its first boot. Nothing here depends on how many servers of a role there are, but
# for the balancers that switches deliver to: another box changes no other machine.
locals {
  machine = { for name, s in local.servers : name => {
    name           = name
    address        = local.address[name]
    image          = lookup(var.images, s.role, "")
    size           = { for k, v in s.size : k => v if k != "count" }
    mac            = module.network.members[name].mac
    network_config = module.network.members[name].network_config
    control_port   = local.roles[s.role].control
    rolling_group  = s.role
    ready_seconds  = var.ready_seconds
    keep_data      = var.keep_data
  } }
  # A directory server tells the others its address, which they may know no name server for.
  seed = { for name, s in local.servers : name => merge(
    { role = s.role, name = name, suffix = "o=shoal", peers = module.network.peers },
    s.role == "vault" ? { address = local.address[name] } : {},
  ) }
  os = { for name in keys(local.servers) : name => { hostname = "${name}.${var.domain}", ssh_authorized_keys = var.authorized_keys } }
  enrol = var.enrol == null ? {} : { for name in keys(local.servers) : name => {
    url       = var.enrol.url
    ca_sha256 = var.enrol.ca_sha256
    hosts     = ["${name}.${var.domain}", local.address[name]]
  } }

  # Each balancer is the first for its own addresses, and the others, in turn, take them over.
  vrrp = var.takeover == null ? {} : { for node, name in local.of.lb : name => flatten([for owner, other in local.of.lb : [
    for family, port in { "4" = 0, "6" = 100 } : {
      interface               = var.takeover.interface
      id                      = port + owner + 1
      priority                = 200 - (node - owner + length(local.of.lb)) % length(local.of.lb)
      peers                   = [for n in local.of.lb : module.network.members[n]["ipv${family}"] if n != name]
      addresses               = [for a in local.lb_addresses[other] : "${a}/${family == "6" ? 128 : 32}" if strcontains(a, ":") == (family == "6")]
    } if length([for a in local.lb_addresses[other] : a if strcontains(a, ":") == (family == "6")]) > 0
  ]]) }

  queue = [for name, v in module.storage.volumes : v if v.kind == "queue"]
  told  = { directory = { uris = module.directory.uris }, balancers = [module.network.blocks["lb"].ipv4, module.network.blocks["lb"].ipv6] }
  of_role = merge(
    { for name in keys(local.servers) : name => "{}" },
    { for name in local.of.box : name => jsonencode(merge(local.told, { address = local.address[name], box = {
      volumes = [for v, x in module.storage.volumes : { name = v, id = x.id, source = x.source } if x.kind == "mail"]
    } })) },
    { for name in local.of.switch : name => jsonencode(merge(local.told, { switch = merge(
      { lmtp = module.switches.lmtp[name] },
      length(local.queue) == 0 ? {} : { queue = { id = local.queue[0].id, source = local.queue[0].source } },
    ) })) },
    { for name in local.of.vault : name => jsonencode({ vault = { shadow_of = [module.directory.master_uri] } }) if name != "vault1" },
  )
  ids    = merge(module.storage.ids, module.directory.ids, module.loadbalancer.ids, module.boxes.ids, module.switches.ids, module.webmail.ids, module.provisioning.ids)
  places = merge(module.boxes.places, module.switches.places, module.webmail.places, module.provisioning.places, module.vaults.places)
}

# The machines come in three steps: the directory's master, to which entries are written; then those with agents, which pools
# and volumes are asked of; then the rest. On the way down the order is the other way round: members are drained while their
# machines still serve.

module "master" {
  source = "../machine"

  machine             = local.machine["vault1"]
  hypervisor          = var.hypervisor
  user_data           = merge(local.os["vault1"], { shoal = local.seed["vault1"] })
  user_data_secret    = lookup(var.secrets, "vault1", null)
  deletion_protection = var.deletion_protection
}

module "first" {
  source   = "../machine"
  for_each = toset(concat(local.of.lb, local.of.storage))

  machine             = local.machine[each.key]
  hypervisor          = var.hypervisor
  user_data           = merge(local.os[each.key], { shoal = merge(local.seed[each.key], contains(keys(local.vrrp), each.key) ? { lb = { vrrp = local.vrrp[each.key] } } : {}) })
  user_data_secret    = lookup(var.secrets, each.key, null)
  enrol               = var.enrol == null ? null : merge(local.enrol[each.key], { server = merge(module.storage.ids, module.loadbalancer.ids)[each.key] })
  deletion_protection = var.deletion_protection && contains(local.of.storage, each.key)
}

module "rest" {
  source   = "../machine"
  for_each = { for name, s in local.servers : name => s if !contains(["lb", "storage"], s.role) && name != "vault1" }

  machine          = local.machine[each.key]
  hypervisor       = var.hypervisor
  user_data        = merge(local.os[each.key], { shoal = merge(local.seed[each.key], jsondecode(local.of_role[each.key])) })
  user_data_secret = lookup(var.secrets, each.key, null)
  enrol            = var.enrol == null || each.value.role == "filter" ? null : merge(local.enrol[each.key], { server = local.ids[each.key] })
  drain            = lookup(local.places, each.key, [])
}
