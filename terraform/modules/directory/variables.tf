variable "master" {
  description = "The one server that takes updates: name and address."
  type        = object({ name = string, address = string })
}

variable "shadows" {
  description = "Copies of the master by name, with their addresses; none: the master serves reads."
  type        = map(object({ address = string }))
  default     = {}
  validation {
    condition     = !contains(keys(var.shadows), var.master.name)
    error_message = "The master cannot be its own shadow."
  }
}

variable "deletion_protection" {
  description = "Refuse plans that destroy the master."
  type        = bool
  default     = true
}

variable "after_directory" {
  description = "What must be there before entries are made: the machine of the directory's master."
  type        = any
  default     = null
}

variable "master_password" {
  description = "The master's own password in the directory, by which it follows another one that is promoted; null: it has none. Write-only."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
}

variable "master_password_version" {
  description = "Another number: the master's password is written again."
  type        = number
  default     = 1
}
