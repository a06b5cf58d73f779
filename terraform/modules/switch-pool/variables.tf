variable "members" {
  description = "Switches by name, each with its address. Names stay with their servers: another one is another key."
  type        = map(object({ address = string }))
  validation {
    condition     = length(var.members) >= 1
    error_message = "The last switch cannot be removed: without one the service does not work."
  }
}

variable "services" {
  description = "Port of each service that the balancers share among the members, by the name of its pool."
  type        = map(number)
  default     = { smtp = 25, submission = 587, submissions = 465 }
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

variable "agents" {
  description = "Agents of the balancers, by node."
  type        = map(string)
  default     = {}
}

variable "drain_seconds" {
  description = "How long sessions may go on at a server that is removed."
  type        = number
  default     = 300
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
