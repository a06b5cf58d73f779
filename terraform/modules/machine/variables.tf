variable "name" {
  description = "Name of the server, which is also the machine's."
  type        = string
}

variable "address" {
  description = "Address at which the machine is, or will be."
  type        = string
}

variable "hypervisor" {
  description = "Where machines are made; null: they exist already, and nothing is made."
  type = object({
    pool        = string
    network     = optional(string)
    bridge      = optional(string)
    domain_type = optional(string, "kvm")
  })
  default = null
  validation {
    condition     = var.hypervisor == null ? true : (var.hypervisor.network == null) != (var.hypervisor.bridge == null)
    error_message = "hypervisor needs either network or bridge."
  }
}

variable "image" {
  description = "Path of the role's image on the hypervisor."
  type        = string
  default     = ""
}

variable "size" {
  description = "Memory, processors and disks."
  type = object({
    memory_mib = optional(number, 1024)
    vcpu       = optional(number, 2)
    root_gib   = optional(number, 8)
    data_gib   = optional(number, 0)
  })
  default = {}
  validation {
    condition     = var.size.memory_mib >= 256 && var.size.vcpu >= 1 && var.size.root_gib >= 1 && var.size.data_gib >= 0
    error_message = "size needs memory_mib of at least 256, vcpu and root_gib of at least 1, and no negative data_gib."
  }
}

variable "mac" {
  description = "MAC address of the machine's interface."
  type        = string
  default     = "52:54:00:00:00:00"
}

variable "network_config" {
  description = "Network of the machine: version 2, JSON."
  type        = string
  default     = null
}

variable "user_data" {
  description = "Settings for the first boot; no secrets."
  type        = any
  default     = {}
}

variable "user_data_secret" {
  description = "Secrets for the first boot: JSON, laid over user_data; write-only."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
}

variable "enrol" {
  description = "How the machine enrols; null: by its secrets, or it is enrolled already."
  type = object({
    server    = string # id of its entry, so that it is there before
    url       = string
    ca_sha256 = string
    hosts     = optional(list(string), [])
  })
  default = null
}

variable "ready" {
  description = "Wait until the role is ready, by its management address."
  type        = bool
  default     = true
}

variable "rolling_group" {
  description = "Machines of one group are rebuilt one at a time."
  type        = string
  default     = null
}

variable "drain" {
  description = "Members of pools that are drained while the machine is rebuilt."
  type        = list(object({ agent = string, pool = string, member = string }))
  default     = []
}

variable "deletion_protection" {
  description = "Refuse plans that destroy it."
  type        = bool
  default     = false
}
