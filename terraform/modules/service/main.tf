# All of the service. Servers are keyed by their names (box1, box2 ...): one that comes or goes touches no other.
locals {
  # Of each role: how its servers are named, where their control API is, and the ports of its services.
  roles = {
    lb        = { prefix = "lb", control = 9145, ports = {} }
    switch    = { prefix = "switch", control = 9026, ports = { smtp = 25, submission = 587, submissions = 465 } }
    box       = { prefix = "box", control = 9144, ports = { imap = 143, imaps = 993, pop3 = 110, pop3s = 995, managesieve = 4190, lmtp = 24 } }
    vault     = { prefix = "vault", control = 9390, ports = { ldap = 389, ldaps = 636 } }
    storage   = { prefix = "storage", control = 9145, ports = {} }
    webmail   = { prefix = "web", control = null, ports = { https = 443 } }
    provision = { prefix = "prov", control = null, ports = { provision = 8443 } }
    filter    = { prefix = "filter", control = null, ports = {} }
  }
  counted = merge([for role, s in var.sizes : {
    for n in range(1, s.count + 1) : "${local.roles[role].prefix}${n}" => { role = role, number = n, size = s }
    } if contains(keys(local.roles), role)
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
  "${strcontains(a, ":") ? "[${a}]" : a}:${lookup(var.agent_ports, name, 9145)}" }
  of      = { for role in keys(local.roles) : role => sort([for name, s in local.servers : name if s.role == role]) }
  members = { for role, names in local.of : role => { for name in names : name => { address = local.address[name] } } }

  lb_addresses = { for name in local.of.lb : name => lookup(var.public_addresses, name, [local.address[name], module.network.members[name].ipv6]) }
  ports = { for role, r in local.roles : role => {
    for service, port in merge(r.ports, lookup(var.member_ports, role, {})) : service => port if contains(module.loadbalancer.pools, service)
  } }
}

module "storage" {
  source = "../storage"

  servers             = { for name in local.of.storage : name => { agent = local.agent[name], address = local.address[name] } }
  volumes             = { for name, v in var.volumes : name => v if length(local.of.storage) > 0 }
  external            = var.external_volumes
  mail_clients        = [module.network.blocks["box"].ipv4, module.network.blocks["box"].ipv6]
  queue_clients       = [module.network.blocks["switch"].ipv4, module.network.blocks["switch"].ipv6]
  on_delete           = var.keep_data ? "refuse" : "keep" # it goes with its disk
  deletion_protection = var.deletion_protection

  after_directory = module.master.address
  after_machines  = module.first
}

module "directory" {
  source = "../directory"

  master              = { name = "vault1", address = local.address["vault1"] }
  shadows             = { for name, m in local.members.vault : name => m if name != "vault1" }
  deletion_protection = var.deletion_protection

  # What its machine is told at its first boot.
  master_password         = try(jsondecode(var.secrets["vault1"]).shoal.credentials.directory_password, null)
  master_password_version = var.master_password_version

  after_directory = module.master.address
}

module "loadbalancer" {
  source = "../loadbalancer"

  nodes = { for name in local.of.lb : name => {
    agent     = local.agent[name]
    addresses = var.takeover == null ? local.lb_addresses[name] : flatten(values(local.lb_addresses))
  } }
  pools = var.pools
  more_pools = var.pools != null ? {} : merge(
    length(local.of.webmail) == 0 ? {} : { https = { port = 443, idle_seconds = 300 } },
    length(local.of.provision) == 0 ? {} : { provision = { port = 8443, idle_seconds = 300 } },
  )

  after_directory = module.master.address
  after_machines  = module.first
}

module "boxes" {
  source = "../box-pool"

  members         = local.members.box
  agents          = module.loadbalancer.agents
  services        = local.ports.box
  drain_seconds   = var.drain_seconds
  after_directory = module.master.address
  after_machines  = module.rest
}

module "switches" {
  source = "../switch-pool"

  members         = local.members.switch
  agents          = module.loadbalancer.agents
  services        = local.ports.switch
  drain_seconds   = var.drain_seconds
  variation       = var.variation
  balancers       = [for name in local.of.lb : local.address[name]]
  boxes           = { for name in local.of.box : name => local.address[name] if contains(values(var.assigned), name) }
  assigned        = var.assigned
  after_directory = module.master.address
  after_machines  = module.rest
}

module "webmail" {
  source = "../webmail-pool"

  members         = local.members.webmail
  agents          = module.loadbalancer.agents
  services        = local.ports.webmail
  drain_seconds   = var.drain_seconds
  after_directory = module.master.address
  after_machines  = module.rest
}

module "provisioning" {
  source = "../provisioning"

  members         = local.members.provision
  agents          = module.loadbalancer.agents
  services        = local.ports.provision
  drain_seconds   = var.drain_seconds
  after_directory = module.master.address
  after_machines  = module.rest
}

# The directory's servers at the balancers: with shadows, the master helps out only when none of them is there.
module "vaults" {
  source = "../pool"

  role           = "vault"
  entries        = false
  members        = local.members.vault
  agents         = module.loadbalancer.agents
  services       = local.ports.vault
  backup         = length(local.of.vault) > 1 ? ["vault1"] : []
  drain_seconds  = var.drain_seconds
  after_machines = [module.directory, module.rest]
}

moved {
  from = shoal_lb_member.vault
  to   = module.vaults.shoal_lb_member.this
}

resource "shoal_domain" "this" {
  for_each = var.domains

  name           = each.key
  default_volume = each.value.default_volume
  catch_all      = each.value.catch_all

  depends_on = [module.directory]
}
