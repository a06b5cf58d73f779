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

module "loadbalancer" {
  source = "../.."

  nodes = {
    lb1 = { agent = "10.20.1.1:9145", addresses = ["192.0.2.1", "2001:db8::1"] }
    lb2 = { agent = "10.20.1.2:9145", addresses = ["192.0.2.2", "2001:db8::2"] }
  }
}
