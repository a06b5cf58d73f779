variable "nodes" {
  description = "Active nodes by name: the agent (host:port), and the addresses that its services listen on."
  type        = map(object({ agent = string, addresses = list(string) }))
  validation {
    condition     = length(var.nodes) >= 1
    error_message = "A service needs at least one balancer."
  }
  validation {
    condition     = alltrue([for n in var.nodes : length(n.addresses) >= 1])
    error_message = "Each node needs at least one address."
  }
}

variable "pools" {
  description = "Pools by name: port, check (tcp smtp lmtp imap pop3 managesieve ldap), PROXY header, and how long either side may be silent."
  type = map(object({
    port           = number
    check          = optional(string, "tcp")
    proxy_protocol = optional(bool, true)
    idle_seconds   = optional(number, 2100)
  }))
  nullable = false
  default = {
    smtp        = { port = 25, check = "smtp", idle_seconds = 660 }
    submission  = { port = 587, check = "smtp", idle_seconds = 660 }
    submissions = { port = 465, idle_seconds = 660 }
    imap        = { port = 143, check = "imap" }
    imaps       = { port = 993 }
    pop3        = { port = 110, check = "pop3", idle_seconds = 900 }
    pop3s       = { port = 995, idle_seconds = 900 }
    managesieve = { port = 4190, check = "managesieve", idle_seconds = 2100 }
    lmtp        = { port = 24, check = "lmtp", proxy_protocol = false, idle_seconds = 660 }
    ldap        = { port = 389, check = "ldap", proxy_protocol = false, idle_seconds = 7200 }
    ldaps       = { port = 636, proxy_protocol = false, idle_seconds = 7200 }
  }
  validation {
    condition     = alltrue([for p in var.pools : p.port >= 1 && p.port <= 65535])
    error_message = "A pool's port is from 1 to 65535."
  }
}

variable "more_pools" {
  description = "Pools beside those of pools."
  type = map(object({
    port           = number
    check          = optional(string, "tcp")
    proxy_protocol = optional(bool, true)
    idle_seconds   = optional(number, 2100)
  }))
  default = {}
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
