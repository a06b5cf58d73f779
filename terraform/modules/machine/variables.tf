variable "machine" {
  description = "The machine: name (that of the server), address at which it is or will be, path of the role's image on the hypervisor, size, MAC address, network (version 2, JSON), port of the control API that is asked whether the role is ready (null: nothing is waited for) and for how long, whether its data disk stays when it is destroyed, and the group of which one at a time is rebuilt."
  type = object({
    name    = string
    address = string
    image   = optional(string, "")
    size = optional(object({
      memory_mib = optional(number, 1024)
      vcpu       = optional(number, 2)
      root_gib   = optional(number, 8)
      data_gib   = optional(number, 0)
    }), {})
    mac            = optional(string, "52:54:00:00:00:00")
    network_config = optional(string)
    control_port   = optional(number)
    ready_seconds  = optional(number, 600)
    keep_data      = optional(bool, true)
    rolling_group  = optional(string)
  })
  validation {
    condition     = var.machine.ready_seconds >= 1 && var.machine.ready_seconds <= 7200
    error_message = "ready_seconds is from 1 to 7200."
  }
  validation {
    condition     = var.machine.size.memory_mib >= 256 && var.machine.size.vcpu >= 1 && var.machine.size.root_gib >= 1 && var.machine.size.data_gib >= 0
    error_message = "size needs memory_mib of at least 256, vcpu and root_gib of at least 1, and no negative data_gib."
  }
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
