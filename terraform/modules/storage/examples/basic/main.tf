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

module "storage" {
  source = "../.."

  servers       = { storage1 = { agent = "10.20.5.1:9145", address = "10.20.5.1" } }
  volumes       = { vol01 = { server = "storage1" }, queue = { server = "storage1", kind = "queue" } }
  mail_clients  = ["10.20.3.0/24", "fd00:20:0:0:3000::/68"]
  queue_clients = ["10.20.2.0/24", "fd00:20:0:0:2000::/68"]
}
