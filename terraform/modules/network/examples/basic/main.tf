terraform {
  required_version = ">= 1.11"
}

module "network" {
  source = "../.."

  ipv4 = "10.20.0.0/20"
  ipv6 = "fd00:20::/64"
  members = {
    lb1  = { role = "lb", number = 1 }
    box1 = { role = "box", number = 1 }
  }
}

output "members" {
  value = module.network.members
}
