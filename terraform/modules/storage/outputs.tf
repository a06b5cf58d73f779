output "volumes" {
  description = "By name: id, source (address:path) and kind, of the volumes made here and of an existing filer's."
  value = merge(
    { for name, v in shoal_nfs_volume.this : name => {
      id     = v.volume_id
      source = "${length(regexall(":", var.servers[var.volumes[name].server].address)) > 0 ? "[${var.servers[var.volumes[name].server].address}]" : var.servers[var.volumes[name].server].address}:${v.path}"
      kind   = v.kind
    } },
    { for name, v in var.external : name => { id = v.id, source = v.source, kind = v.kind } },
  )
}

output "ids" {
  description = "By server: the id of its entry."
  value       = { for name, s in shoal_server.this : name => s.id }
}
