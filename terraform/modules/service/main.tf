# All of the service. Servers are keyed by their names (box1, box2 ...): one that comes or goes touches no other.
locals {
  prefix = { lb = "lb", switch = "switch", box = "box", storage = "storage", webmail = "web", provision = "prov", filter = "filter" }
  counted = merge([for role, s in var.sizes : {
    for n in range(1, s.count + 1) : "${lookup(local.prefix, role, "")}${n}" => { role = role, number = n, size = s }
    } if contains(keys(local.prefix), role)
  ]...)
  # vault1 is the master, the shadows follow it.
  vaults = merge(
    { vault1 = { role = "vault", number = 1, size = merge({ count = 1 }, var.master) } },
    { for n in range(2, try(var.sizes["shadow"].count, 0) + 2) : "vault${n}" => { role = "vault", number = n, size = var.sizes["shadow"] } },
  )
  servers = merge(local.counted, local.vaults)
}

module "network" {
  source = "../network"

  ipv4        = var.ipv4
  ipv6        = var.ipv6
  gateway4    = var.gateway4
  gateway6    = var.gateway6
  nameservers = var.nameservers
  members     = { for name, s in local.servers : name => { role = s.role, number = s.number } }
}

locals {
  address = { for name, m in module.network.members : name => lookup(var.addresses, name, m.ipv4) }
  agent = { for name, a in local.address : name =>
  "${length(regexall(":", a)) > 0 ? "[${a}]" : a}:${lookup(var.agent_ports, name, 9145)}" }
  of = { for role in concat(keys(local.prefix), ["vault"]) : role => sort([for name, s in local.servers : name if s.role == role]) }

  lb_addresses = { for name in local.of.lb : name => lookup(var.public_addresses, name, [local.address[name], module.network.members[name].ipv6]) }
  usual_ports = {
    box       = { imap = 143, imaps = 993, pop3 = 110, pop3s = 995, lmtp = 24 }
    switch    = { smtp = 25, submission = 587, submissions = 465 }
    vault     = { ldap = 389, ldaps = 636 }
    webmail   = { https = 443 }
    provision = { provision = 8443 }
  }
  usual_pools = merge(
    {
      smtp        = { port = 25, check = "smtp", proxy_protocol = true, idle_seconds = 660 }
      submission  = { port = 587, check = "smtp", proxy_protocol = true, idle_seconds = 660 }
      submissions = { port = 465, check = "tcp", proxy_protocol = true, idle_seconds = 660 }
      imap        = { port = 143, check = "imap", proxy_protocol = true, idle_seconds = 2100 }
      imaps       = { port = 993, check = "tcp", proxy_protocol = true, idle_seconds = 2100 }
      pop3        = { port = 110, check = "pop3", proxy_protocol = true, idle_seconds = 900 }
      pop3s       = { port = 995, check = "tcp", proxy_protocol = true, idle_seconds = 900 }
      lmtp        = { port = 24, check = "lmtp", proxy_protocol = false, idle_seconds = 660 }
      ldap        = { port = 389, check = "ldap", proxy_protocol = false, idle_seconds = 7200 }
      ldaps       = { port = 636, check = "tcp", proxy_protocol = false, idle_seconds = 7200 }
    },
    length(local.of.webmail) == 0 ? {} : { https = { port = 443, check = "tcp", proxy_protocol = true, idle_seconds = 300 } },
    length(local.of.provision) == 0 ? {} : { provision = { port = 8443, check = "tcp", proxy_protocol = true, idle_seconds = 300 } },
  )
  pools = var.pools == null ? local.usual_pools : var.pools
  ports = { for role, usual in local.usual_ports : role => {
    for service, port in merge(usual, lookup(var.member_ports, role, {})) : service => port if contains(keys(local.pools), service)
  } }
}

module "storage" {
  source = "../storage"

  servers             = { for name in local.of.storage : name => { agent = local.agent[name], address = local.address[name] } }
  volumes             = { for name, v in var.volumes : name => v if length(local.of.storage) > 0 }
  external            = var.external_volumes
  mail_clients        = [module.network.blocks["box"].ipv4, module.network.blocks["box"].ipv6]
  queue_clients       = [module.network.blocks["switch"].ipv4, module.network.blocks["switch"].ipv6]
  deletion_protection = var.deletion_protection

  after_directory = module.master.address
  after_machines  = module.first
}

module "directory" {
  source = "../directory"

  master              = { name = "vault1", address = local.address["vault1"] }
  shadows             = { for name in local.of.vault : name => { address = local.address[name] } if name != "vault1" }
  deletion_protection = var.deletion_protection

  after_directory = module.master.address
}

module "loadbalancer" {
  source = "../loadbalancer"

  nodes = { for name in local.of.lb : name => { agent = local.agent[name], addresses = local.lb_addresses[name] } }
  pools = local.pools

  after_directory = module.master.address
  after_machines  = module.first
}

module "boxes" {
  source = "../box-pool"

  members       = { for name in local.of.box : name => { address = local.address[name] } }
  agents        = module.loadbalancer.agents
  services      = local.ports.box
  drain_seconds = var.drain_seconds

  after_directory = module.master.address
  after_machines  = module.rest
}

module "switches" {
  source = "../switch-pool"

  members       = { for name in local.of.switch : name => { address = local.address[name] } }
  agents        = module.loadbalancer.agents
  services      = local.ports.switch
  drain_seconds = var.drain_seconds
  variation     = var.variation
  balancers     = [for name in local.of.lb : local.address[name]]
  boxes         = { for name in local.of.box : name => local.address[name] if contains(values(var.assigned), name) }
  assigned      = var.assigned

  after_directory = module.master.address
  after_machines  = module.rest
}

module "webmail" {
  source = "../webmail-pool"

  members       = { for name in local.of.webmail : name => { address = local.address[name] } }
  agents        = module.loadbalancer.agents
  services      = local.ports.webmail
  drain_seconds = var.drain_seconds

  after_directory = module.master.address
  after_machines  = module.rest
}

module "provisioning" {
  source = "../provisioning"

  members       = { for name in local.of.provision : name => { address = local.address[name] } }
  agents        = module.loadbalancer.agents
  services      = local.ports.provision
  drain_seconds = var.drain_seconds

  after_directory = module.master.address
  after_machines  = module.rest
}

# The directory's servers at the balancers: with shadows, the master helps out only when none of them is there.
resource "shoal_lb_member" "vault" {
  for_each = merge(flatten([for node, agent in module.loadbalancer.agents : [
    for service, port in local.ports.vault : {
      for name in local.of.vault : "${node}/${service}/${name}" => {
        agent = agent, service = service, name = name, port = port
      }
    }
  ]])...)

  agent         = each.value.agent
  pool          = each.value.service
  name          = each.value.name
  address       = length(regexall(":", local.address[each.value.name])) > 0 ? "[${local.address[each.value.name]}]:${each.value.port}" : "${local.address[each.value.name]}:${each.value.port}"
  backup        = each.value.name == "vault1" && length(local.of.vault) > 1
  drain_seconds = var.drain_seconds

  depends_on = [module.directory, module.rest]
}

resource "shoal_domain" "this" {
  for_each = var.domains

  name           = each.key
  default_volume = each.value.default_volume
  catch_all      = each.value.catch_all

  depends_on = [module.directory]
}
