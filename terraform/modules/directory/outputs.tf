output "master_uri" {
  description = "Where updates go."
  value       = local.master_uri
}

output "uris" {
  description = "Where servers read, in order: the shadows, then the master, which helps out."
  value       = concat([for name in sort(keys(var.shadows)) : "ldaps://${local.bracketed[name]}:636"], [local.master_uri])
}

output "servers" {
  description = "Names of master and shadows, for the members of the balancers' pools."
  value       = keys(local.bracketed)
}

output "ids" {
  description = "By server: the id of its entry."
  value       = merge({ (var.master.name) = shoal_server.master.id }, { for name, s in shoal_directory_shadow.this : name => s.id })
}
