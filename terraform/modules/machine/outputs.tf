output "address" {
  description = "Address of the machine, known once it is there."
  value       = try(shoal_machine.this[0].id, "") == null ? null : var.machine.address
}

output "made" {
  description = "Whether the machine is made here."
  value       = length(shoal_machine.this) == 1
}

output "user_data" {
  description = "Settings for its first boot, without secrets."
  value       = var.user_data
}
