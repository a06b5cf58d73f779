variable "members" {
  description = "Switches by name, each with its address. Names stay with their servers: another one is another key."
  type        = map(object({ address = string }))
  validation {
    condition     = length(var.members) >= 1
    error_message = "The last switch cannot be removed: without one the service does not work."
  }
  validation {
    condition     = alltrue([for name, m in var.members : can(regex("^[a-z0-9][a-z0-9-]{0,14}$", name))])
    error_message = "The name of a server is 1 to 15 of a-z, 0-9 and '-', beginning with a letter or digit."
  }
  validation {
    condition     = alltrue([for m in var.members : can(cidrhost("${m.address}/${length(regexall(":", m.address)) > 0 ? 128 : 32}", 0))])
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
  default     = { smtp = 25, submission = 587, submissions = 465 }
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

variable "variation" {
  description = "How mail reaches the boxes: 1, through the balancers; 2, each switch to its assigned box."
  type        = number
  default     = 1
  validation {
    condition     = contains([1, 2], var.variation)
    error_message = "variation is 1 or 2."
  }
}

variable "balancers" {
  description = "Addresses of the balancers, for variation 1."
  type        = list(string)
  default     = []
}

variable "boxes" {
  description = "Addresses of the boxes by name, for variation 2."
  type        = map(string)
  default     = {}
}

variable "assigned" {
  description = "Variation 2: the box of each switch, by name. It is written down, so that another box moves nobody."
  type        = map(string)
  default     = {}
  validation {
    condition     = var.variation == 1 || alltrue([for name in keys(var.members) : contains(keys(var.boxes), lookup(var.assigned, name, ""))])
    error_message = "In variation 2 every switch needs an assigned box that is there."
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
