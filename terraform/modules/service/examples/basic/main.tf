terraform {
  required_version = ">= 1.11"
  required_providers {
    shoal = {
      source = "shoal/shoal"
    }
  }
}

provider "shoal" {
  operator = {
    cert_file = "${path.root}/alice/alice.crt"
    key_file  = "${path.root}/alice/alice.key"
    ca_file   = "${path.root}/alice/ca.crt"
  }
  directory = {
    uris          = ["ldaps://vault1.example.net:636"]
    password_file = "${path.root}/root.secret"
  }
}

variable "box_count" {
  type    = number
  default = 2
}

module "service" {
  source = "../.."

  domain = "example.net"
  ipv4   = "10.20.0.0/20"
  ipv6   = "fd00:20::/64"
  sizes = {
    lb      = { count = 1 }
    switch  = { count = 1 }
    box     = { count = var.box_count }
    shadow  = { count = 1 }
    storage = { count = 1 }
  }
}

output "inventory" {
  value = module.service.inventory
}
