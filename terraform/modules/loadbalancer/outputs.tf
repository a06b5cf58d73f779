output "agents" {
  description = "Agents by the name of their node, known once their pools are there: for the members."
  value       = { for node, n in var.nodes : node => n.agent if length([for k, p in shoal_lb_pool.this : p if p.agent == n.agent]) > 0 || length(local.all) == 0 }
}

output "addresses" {
  description = "All addresses of the service: for DNS."
  value       = distinct(flatten([for n in var.nodes : n.addresses]))
}

output "ids" {
  description = "By server: the id of its entry."
  value       = { for name, s in shoal_server.this : name => s.id }
}

output "pools" {
  description = "Names of the pools."
  value       = keys(local.all)
}
