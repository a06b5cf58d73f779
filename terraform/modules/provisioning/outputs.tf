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
