locals {
  # The place of each role among the sixteenths. Never change one: addresses depend on it.
  places = { lb = 1, switch = 2, box = 3, vault = 4, storage = 5, webmail = 6, provision = 7, filter = 8 }
  blocks = {
    for role, place in local.places : role => {
      ipv4 = cidrsubnet(var.ipv4, 4, place)
      ipv6 = cidrsubnet(var.ipv6, 4, place)
    }
  }
  members = {
    for name, m in var.members : name => {
      role = m.role
      ipv4 = cidrhost(local.blocks[m.role].ipv4, m.number)
      ipv6 = cidrhost(local.blocks[m.role].ipv6, m.number)
      mac  = format("52:54:00:%02x:%02x:%02x", local.places[m.role], floor(m.number / 256), m.number % 256)
    }
  }
}
