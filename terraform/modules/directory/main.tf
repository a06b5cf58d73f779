locals {
  bracketed = { for name, a in merge({ (var.master.name) = var.master.address }, { for n, s in var.shadows : n => s.address }) :
  name => length(regexall(":", a)) > 0 ? "[${a}]" : a }
  master_uri = "ldaps://${local.bracketed[var.master.name]}:636"
}

resource "shoal_server" "master" {
  name                = var.master.name
  role                = "vault"
  deletion_protection = var.deletion_protection
  password_wo         = var.master_password
  password_wo_version = var.master_password_version

  depends_on = [var.after_directory]
}

resource "shoal_directory_shadow" "this" {
  for_each = var.shadows

  name   = each.key
  master = [local.master_uri]

  depends_on = [shoal_server.master]
}
