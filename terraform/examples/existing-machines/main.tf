terraform {
  required_version = ">= 1.11"
  required_providers {
    shoal = {
      source = "shoal/shoal"
    }
  }
}

# A service on machines that are there already: no hypervisor at all. Each of them has its packages and an agent where its role
# needs one (lb, storage); Terraform keeps the directory's entries, the balancers' pools and the exports.
variable "operator" {
  description = "Folder with the operator's certificate: alice.crt, alice.key, ca.crt."
  type        = string
  default     = "alice"
}

variable "directory" {
  description = "The directory's master, and the file with the administrator's password."
  type        = object({ uri = string, password_file = string })
  default     = { uri = "ldaps://192.0.2.4:636", password_file = "root.secret" }
}

variable "box_count" {
  description = "How many boxes: 2, 3 ..."
  type        = number
  default     = 2
}

variable "addresses" {
  description = "Addresses of the machines by name."
  type        = map(string)
  default = {
    lb1      = "192.0.2.10"
    switch1  = "192.0.2.21"
    box1     = "192.0.2.31"
    box2     = "192.0.2.32"
    box3     = "192.0.2.33"
    vault1   = "192.0.2.4"
    storage1 = "192.0.2.5"
  }
}

variable "agent_ports" {
  description = "Ports of agents that are not at 9145."
  type        = map(number)
  default     = {}
}

variable "pools" {
  description = "Pools of the balancers; null for the usual ones."
  type        = map(object({ port = number, check = optional(string, "tcp"), proxy_protocol = optional(bool, true), idle_seconds = optional(number, 2100) }))
  default     = null
}

variable "member_ports" {
  description = "By role, ports of services on the servers, where they are not the usual ones."
  type        = map(map(number))
  default     = {}
}

variable "public_addresses" {
  description = "Addresses of the service on each balancer."
  type        = map(list(string))
  default     = { lb1 = ["198.51.100.1", "2001:db8::1"] }
}

variable "deletion_protection" {
  description = "Refuse plans that destroy the master, storage servers or volumes."
  type        = bool
  default     = true
}

provider "shoal" {
  operator = {
    cert_file = "${var.operator}/alice.crt"
    key_file  = "${var.operator}/alice.key"
    ca_file   = "${var.operator}/ca.crt"
  }
  directory = {
    uris          = [var.directory.uri]
    password_file = var.directory.password_file
  }
}

module "service" {
  source = "../../modules/service"

  domain           = "example.net"
  ipv4             = "10.20.0.0/20"
  ipv6             = "fd00:20::/64"
  addresses        = var.addresses
  agent_ports      = var.agent_ports
  pools            = var.pools
  member_ports     = var.member_ports
  public_addresses = var.public_addresses
  sizes = {
    lb      = { count = 1 }
    switch  = { count = 1 }
    box     = { count = var.box_count }
    storage = { count = 1 }
  }
  domains             = { "example.test" = { default_volume = "vol01" } }
  deletion_protection = var.deletion_protection
}

output "inventory" {
  value = module.service.inventory
}

output "volumes" {
  value = module.service.volumes
}

output "seeds" {
  value = module.service.seeds
}
