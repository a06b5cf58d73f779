output "servers" {
  description = "By server: the role of its entry."
  value       = { for name in keys(var.members) : name => var.role }
}

output "places" {
  description = "By server: its members of pools, for draining it."
  value = { for name in keys(var.members) : name => [
    for k, p in local.places : { agent = p.agent, pool = p.service, member = p.name } if p.name == name
  ] }
}

output "ids" {
  description = "By server: the id of its entry."
  value       = { for name, s in shoal_server.this : name => s.id }
}
