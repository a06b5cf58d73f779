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

module "pool" {
  source = "../.."

  role     = "box"
  services = { imap = 143, imaps = 993 }
  agents   = { lb1 = "10.20.1.1:9145" }
  members  = { box1 = { address = "10.20.3.1" } }
}
