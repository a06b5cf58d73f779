variable "sizes" {
  description = "How many servers of each role there are, and how large their machines. Adding capacity is one number: sizes.box.count."
  type = map(object({
    count      = number
    memory_mib = optional(number, 1024)
    vcpu       = optional(number, 2)
    root_gib   = optional(number, 8)
    data_gib   = optional(number, 0)
  }))
  validation {
    condition     = alltrue([for role in keys(var.sizes) : contains(["lb", "switch", "box", "shadow", "storage", "webmail", "provision", "filter"], role)])
    error_message = "sizes has a role that is not one of lb, switch, box, shadow, storage, webmail, provision, filter. The directory's master is always one."
  }
  validation {
    condition     = alltrue([for role in ["lb", "switch", "box"] : try(var.sizes[role].count, 0) >= 1])
    error_message = "There must be at least one lb, one switch and one box: the last one cannot be removed."
  }
  validation {
    condition     = alltrue([for s in var.sizes : s.count >= 0 && s.count == floor(s.count) && s.count <= 200])
    error_message = "A count is a whole number from 0 to 200."
  }
  validation {
    condition     = alltrue([for s in var.sizes : s.memory_mib >= 256 && s.vcpu >= 1 && s.root_gib >= 1 && s.data_gib >= 0])
    error_message = "A machine needs memory_mib of at least 256, vcpu and root_gib of at least 1, and no negative data_gib."
  }
}

variable "master" {
  description = "Size of the directory's master."
  type = object({
    memory_mib = optional(number, 1024)
    vcpu       = optional(number, 2)
    root_gib   = optional(number, 8)
    data_gib   = optional(number, 16)
  })
  default = {}
}

variable "domain" {
  description = "Domain in which the servers' names are."
  type        = string
}

variable "ipv4" {
  description = "IPv4 network of the service (module network)."
  type        = string
}

variable "ipv6" {
  description = "IPv6 network of the service: a /64 (module network)."
  type        = string
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

variable "public_addresses" {
  description = "Addresses of the service on each balancer, by its name (lb1 ...); those of the node itself where none are given."
  type        = map(list(string))
  default     = {}
}

variable "takeover" {
  description = "Balancers take over each other's public addresses when one of them is gone (keepalived, on this interface): then every pool listens on all of them; null: they do not."
  type        = object({ interface = optional(string, "eth0") })
  default     = null
  validation {
    condition     = var.takeover == null || length(var.public_addresses) > 0
    error_message = "takeover needs public_addresses: what is taken over are those, not the nodes' own."
  }
}

variable "addresses" {
  description = "Addresses of machines that exist already, by name: box1 ... Those that are not named have the one of the service's network."
  type        = map(string)
  default     = {}
}

variable "agent_ports" {
  description = "Port of the agent by server, where it is not 9145."
  type        = map(number)
  default     = {}
}

variable "hypervisor" {
  description = "Where machines are made (module machine); null: they exist already."
  type = object({
    pool        = string
    network     = optional(string)
    bridge      = optional(string)
    domain_type = optional(string, "kvm")
  })
  default = null
}

variable "images" {
  description = "Path of the image of each role on the hypervisor: switch, box, vault, lb, storage, webmail, provision, filter."
  type        = map(string)
  default     = {}
}

variable "enrol" {
  description = "The authority for enrolment: its URL and the CA's fingerprint; null: machines are set up otherwise."
  type        = object({ url = string, ca_sha256 = string })
  default     = null
}

variable "secrets" {
  description = "Secrets for the first boot by server, JSON, laid over its settings; write-only. The master needs some: it cannot enrol at itself. With shoal.credentials.directory_password it can follow another one that is promoted."
  type        = map(string)
  default     = {}
  ephemeral   = true
}

variable "authorized_keys" {
  description = "SSH keys of the operators."
  type        = list(string)
  default     = []
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

variable "assigned" {
  description = "Variation 2: the box of each switch, by name."
  type        = map(string)
  default     = {}
}

variable "volumes" {
  description = "Volumes by name: the storage server that has it (storage1 ...), and its kind, mail or queue."
  type        = map(object({ server = string, kind = optional(string, "mail") }))
  default     = { vol01 = { server = "storage1" }, queue = { server = "storage1", kind = "queue" } }
}

variable "external_volumes" {
  description = "Volumes of an existing filer (module storage)."
  type        = map(object({ source = string, id = string, kind = optional(string, "mail") }))
  default     = {}
}

variable "domains" {
  description = "Mail domains."
  type        = map(object({ default_volume = optional(string), catch_all = optional(string) }))
  default     = {}
}

variable "pools" {
  description = "Pools of the balancers (module loadbalancer); null for the usual ones."
  type = map(object({
    port           = number
    check          = optional(string, "tcp")
    proxy_protocol = optional(bool, true)
    idle_seconds   = optional(number, 2100)
  }))
  default = null
}

variable "member_ports" {
  description = "By role, ports of its services on the servers, where they are not the usual ones."
  type        = map(map(number))
  default     = {}
}

variable "drain_seconds" {
  description = "How long sessions may go on at a server that is removed or rebuilt."
  type        = number
  default     = 300
}

variable "deletion_protection" {
  description = "Refuse plans that destroy the master, storage servers or volumes."
  type        = bool
  default     = true
}

variable "ready_seconds" {
  description = "How long a machine may take until its role is ready, after it was made or rebuilt."
  type        = number
  default     = 600
  validation {
    condition     = var.ready_seconds >= 1 && var.ready_seconds <= 7200
    error_message = "ready_seconds is from 1 to 7200."
  }
}

variable "keep_data" {
  description = "Data disks stay when their machines are destroyed, and are found again by machines of the same names. False: they go with them, also those that hold mail."
  type        = bool
  default     = true
}

variable "master_password_version" {
  description = "Another number: the master's own password, shoal.credentials.directory_password of its secrets, is written to the directory again."
  type        = number
  default     = 1
}
