variable "role" {
  description = "Role of the servers."
  type        = string
}

variable "members" {
  description = "Servers by name, each with its address. Names stay with their servers: another one is another key."
  type        = map(object({ address = string }))
  validation {
    condition     = alltrue([for name in keys(var.members) : can(regex("^[a-z0-9][a-z0-9-]{0,14}$", name))])
    error_message = "The name of a server is 1 to 15 of a-z, 0-9 and '-', beginning with a letter or digit."
  }
  validation {
    condition     = alltrue([for m in var.members : can(cidrhost("${m.address}/${strcontains(m.address, ":") ? 128 : 32}", 0))])
    error_message = "The address of a member is an IPv4 or IPv6 address."
  }
}

variable "agents" {
  description = "Agents of the balancers, by node."
  type        = map(string)
  default     = {}
}

variable "services" {
  description = "Port of each service that the balancers share among the members, by the name of its pool."
  type        = map(number)
  validation {
    condition     = alltrue([for port in var.services : port >= 1 && port <= 65535 && port == floor(port)])
    error_message = "A port is a whole number from 1 to 65535."
  }
}

variable "drain_seconds" {
  description = "How long sessions may go on at a server that is removed."
  type        = number
  default     = 300
  validation {
    condition     = var.drain_seconds >= 0 && var.drain_seconds <= 86400
    error_message = "drain_seconds is from 0 to 86400."
  }
}

variable "entries" {
  description = "Whether the entries in the directory are made here."
  type        = bool
  default     = true
}

variable "backup" {
  description = "Names of the members that get connections only when no other is up."
  type        = set(string)
  default     = []
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
