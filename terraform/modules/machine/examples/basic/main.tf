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

module "box1" {
  source = "../.."

  machine = {
    name         = "box1"
    address      = "10.20.3.1"
    image        = "/var/lib/libvirt/images/shoal-box-1.0.0.qcow2"
    control_port = 9144
  }
  hypervisor = { pool = "default", network = "service" }
  user_data  = { shoal = { role = "box", name = "box1" } }
  enrol      = { server = "box1", url = "https://vault1.example.net:7443", ca_sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
}
