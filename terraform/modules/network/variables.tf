variable "ipv4" {
  description = "IPv4 network of the service, /16 to /24. Each role has a sixteenth of it."
  type        = string
  validation {
    condition     = can(cidrhost(var.ipv4, 0)) && can(regex("^[0-9.]+/(1[6-9]|2[0-4])$", var.ipv4)) && cidrhost(var.ipv4, 0) == split("/", var.ipv4)[0]
    error_message = "ipv4 must be a network from /16 to /24, such as 10.20.0.0/20."
  }
}

variable "ipv6" {
  description = "IPv6 network of the service: a /64. Each role has a /68 of it."
  type        = string
  validation {
    condition     = can(cidrhost(var.ipv6, 0)) && can(regex("^[0-9a-f:]+/64$", var.ipv6))
    error_message = "ipv6 must be a /64 in lower case, such as fd00:20::/64."
  }
}

variable "gateway4" {
  description = "IPv4 gateway; null for none."
  type        = string
  default     = null
}

variable "gateway6" {
  description = "IPv6 gateway; null for none."
  type        = string
  default     = null
}

variable "nameservers" {
  description = "Addresses of name servers."
  type        = list(string)
  default     = []
}

variable "members" {
  description = "Servers by name: a role, and a number (from 1) that the server keeps. Addresses depend on these two alone, so that a new server moves no other."
  type = map(object({
    role   = string
    number = number
  }))
  validation {
    condition     = alltrue([for m in var.members : contains(["lb", "switch", "box", "vault", "storage", "webmail", "provision", "filter"], m.role)])
    error_message = "The role of a member is one of lb, switch, box, vault, storage, webmail, provision, filter."
  }
  validation {
    condition     = length(distinct([for m in var.members : "${m.role} ${m.number}"])) == length(var.members)
    error_message = "Two members of a role have the same number."
  }
  validation {
    condition     = alltrue([for m in var.members : m.number >= 1 && m.number <= pow(2, 28 - tonumber(split("/", var.ipv4)[1])) - 2])
    error_message = "A number is below 1, or beyond the role's sixteenth of ipv4: take a larger network."
  }
}
