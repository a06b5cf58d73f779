output "members" {
  description = "By name: role, ipv4, ipv6, mac, and network_config (version 2, JSON) for the first boot."
  value = {
    for name, m in local.members : name => merge(m, {
      network_config = jsonencode({
        version = 2
        ethernets = {
          service = merge(
            {
              match       = { macaddress = m.mac }
              dhcp4       = false
              addresses   = ["${m.ipv4}/${split("/", var.ipv4)[1]}", "${m.ipv6}/64"]
              nameservers = { addresses = var.nameservers }
            },
            var.gateway4 == null ? {} : { gateway4 = var.gateway4 },
            var.gateway6 == null ? {} : { gateway6 = var.gateway6 },
          )
        }
      })
    })
  }
}

output "blocks" {
  description = "By role: the networks in which its servers are, ipv4 and ipv6."
  value       = local.blocks
}

output "peers" {
  description = "The networks of the service."
  value       = [var.ipv4, var.ipv6]
}
