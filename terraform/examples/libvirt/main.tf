terraform {
  required_version = ">= 1.11"
  required_providers {
    shoal = {
      source = "shoal/shoal"
    }
  }
}

# A service on virtual machines of libvirt, from the project's images. The order of a first apply: the master first (it holds the
# directory and the authority), then the rest; see docs/terraform.md.
variable "images" {
  description = "Images by role: file and SHA-256, from the images' manifest."
  type        = map(object({ file = string, sha256 = string }))
}

variable "pool" {
  description = "Storage pool of libvirt."
  type        = string
  default     = "default"
}

variable "network" {
  description = "Network of libvirt."
  type        = string
  default     = "service"
}

variable "domain_type" {
  description = "kvm, or qemu where the processor cannot."
  type        = string
  default     = "kvm"
}

variable "box_count" {
  description = "How many boxes: 2, 3 ..."
  type        = number
  default     = 2
}

variable "authority" {
  description = "The authority for enrolment, and the CA's fingerprint."
  type        = object({ url = string, ca_sha256 = string })
}

variable "master_secret" {
  description = "What the directory's master gets at its first boot: JSON with its certificate, key and CA."
  type        = string
  ephemeral   = true
  sensitive   = true
}

variable "operator" {
  description = "Folder with the operator's certificate: alice.crt, alice.key, ca.crt."
  type        = string
}

variable "libvirt" {
  description = "URI of libvirt."
  type        = string
  default     = "qemu:///system"
}

provider "shoal" {
  operator = {
    cert_file = "${var.operator}/alice.crt"
    key_file  = "${var.operator}/alice.key"
    ca_file   = "${var.operator}/ca.crt"
  }
  directory = {
    uris          = ["ldaps://10.20.4.1:636"]
    password_file = "${var.operator}/root.secret"
  }
  libvirt = {
    uri = var.libvirt
  }
}

resource "shoal_image" "role" {
  for_each = var.images

  name   = "shoal-${each.key}-${substr(each.value.sha256, 0, 12)}.qcow2"
  pool   = var.pool
  source = each.value.file
  sha256 = each.value.sha256
}

module "service" {
  source = "../../modules/service"

  domain     = "example.net"
  ipv4       = "10.20.0.0/20"
  ipv6       = "fd00:20::/64"
  gateway4   = "10.20.0.1"
  hypervisor = { pool = var.pool, network = var.network, domain_type = var.domain_type }
  images     = { for role, i in shoal_image.role : role => i.path }
  enrol      = var.authority
  secrets    = { vault1 = var.master_secret }
  sizes = {
    lb      = { count = 1, memory_mib = 512 }
    switch  = { count = 1 }
    box     = { count = var.box_count }
    shadow  = { count = 1, data_gib = 4 }
    storage = { count = 1, data_gib = 64 }
  }
}

output "inventory" {
  value = module.service.inventory
}
