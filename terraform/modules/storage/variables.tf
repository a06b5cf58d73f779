variable "servers" {
  description = "Storage servers by name, with the agent's address (host:port). An existing filer has none: see external."
  type        = map(object({ agent = string, address = string }))
  default     = {}
}

variable "volumes" {
  description = "Volumes by name: kind (mail or queue), and the storage server that has it."
  type        = map(object({ server = string, kind = optional(string, "mail") }))
  default     = {}
  validation {
    condition     = alltrue([for v in var.volumes : contains(["mail", "queue"], v.kind)])
    error_message = "The kind of a volume is mail or queue."
  }
  validation {
    condition     = alltrue([for v in var.volumes : contains(keys(var.servers), v.server)])
    error_message = "A volume names a server that is not in servers."
  }
}

variable "mail_clients" {
  description = "Networks of the boxes: only they mount mail."
  type        = list(string)
  validation {
    condition     = alltrue([for c in var.mail_clients : can(cidrhost(c, 0)) && tonumber(split("/", c)[1]) >= (length(regexall(":", c)) > 0 ? 48 : 16)])
    error_message = "A client must be a network (CIDR) of at least /16 (IPv4) or /48 (IPv6): a shorter one would open the store to the world."
  }
}

variable "queue_clients" {
  description = "Networks of the switches: only they mount queues."
  type        = list(string)
  validation {
    condition     = alltrue([for c in var.queue_clients : can(cidrhost(c, 0)) && tonumber(split("/", c)[1]) >= (length(regexall(":", c)) > 0 ? 48 : 16)])
    error_message = "A client must be a network (CIDR) of at least /16 (IPv4) or /48 (IPv6): a shorter one would open the store to the world."
  }
}

variable "security" {
  description = "Security of the exports: sys on a network of their own, krb5p elsewhere."
  type        = set(string)
  default     = ["sys"]
}

variable "external" {
  description = "Volumes of an existing filer, by name: source (server:/path), id (UUID of the marker file), kind."
  type        = map(object({ source = string, id = string, kind = optional(string, "mail") }))
  default     = {}
}

variable "deletion_protection" {
  description = "Refuse plans that destroy servers and volumes."
  type        = bool
  default     = true
}

variable "on_delete" {
  description = "What happens to a volume that holds data when it is destroyed: refuse, or keep (it is served no longer, and its data stays on the disk of its server)."
  type        = string
  default     = "refuse"
  validation {
    condition     = contains(["refuse", "keep"], var.on_delete)
    error_message = "on_delete is refuse or keep."
  }
}

variable "after_directory" {
  description = "What must be there before entries are made: the machine of the directory's master."
  type        = any
  default     = null
}

variable "after_machines" {
  description = "What must be there before agents are asked: their machines. It is destroyed after what depends on it here."
  type        = any
  default     = null
}
