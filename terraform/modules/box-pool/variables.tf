variable "members" {
  description = "Boxes by name, each with its address. Names stay with their servers: another one is another key."
  type        = map(object({ address = string }))
  validation {
    condition     = length(var.members) >= 1
    error_message = "The last box cannot be removed: without one the service does not work."
  }
}

variable "services" {
  description = "Port of each service that the balancers share among the members, by the name of its pool."
  type        = map(number)
  default     = { imap = 143, imaps = 993, pop3 = 110, pop3s = 995, managesieve = 4190, lmtp = 24 }
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
