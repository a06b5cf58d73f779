output "servers" {
  description = "By server: the role of its entry."
  value       = module.pool.servers
}

output "places" {
  description = "By server: its members of pools, for draining it."
  value       = module.pool.places
}

output "ids" {
  description = "By server: the id of its entry."
  value       = module.pool.ids
}

output "lmtp" {
  description = "By switch: where it delivers, host:port."
  value       = { for name, hosts in local.hosts : name => [for h in hosts : strcontains(h, ":") ? "[${h}]:24" : "${h}:24"] }
}
