output "inventory" {
  description = "The servers for Ansible: by name, address, role and group settings."
  value = { for name, s in local.servers : name => {
    ansible_host = local.address[name]
    role         = s.role
    ipv4         = module.network.members[name].ipv4
    ipv6         = module.network.members[name].ipv6
    agent        = contains(["lb", "storage"], s.role) ? local.agent[name] : null
    master       = name == "vault1"
  } }
}

output "addresses" {
  description = "Addresses of the service: for DNS."
  value       = module.loadbalancer.addresses
}

output "directory" {
  description = "Where servers read the directory, and where updates go."
  value       = { uris = module.directory.uris, master = module.directory.master_uri }
}

output "volumes" {
  description = "The volumes: id, source, kind."
  value       = module.storage.volumes
}

output "lmtp" {
  description = "By switch: where it delivers."
  value       = module.switches.lmtp
}

output "places" {
  description = "By server: its members of the balancers' pools."
  value       = local.places
}

output "vrrp" {
  description = "By balancer: its virtual routers, for keepalived (takeover); what the machines made here are told by their seeds."
  value       = local.vrrp
}

output "seeds" {
  description = "By server: settings for its first boot (user-data of NoCloud), without what it enrols with. Machines made here have them; for others they are what to give to an image, or to Ansible."
  value       = merge({ vault1 = module.master.user_data }, { for name, m in merge(module.first, module.rest) : name => m.user_data })
}
