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

module "directory" {
  source = "../.."

  master  = { name = "vault1", address = "10.20.4.1" }
  shadows = { vault2 = { address = "10.20.4.2" } }
}
