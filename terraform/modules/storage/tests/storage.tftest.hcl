mock_provider "shoal" {}

variables {
  servers       = { storage1 = { agent = "10.20.5.1:9145", address = "10.20.5.1" } }
  volumes       = { vol01 = { server = "storage1" }, queue = { server = "storage1", kind = "queue" } }
  mail_clients  = ["10.20.3.0/24", "fd00:20:0:0:3000::/68"]
  queue_clients = ["10.20.2.0/24"]
}

run "mail_and_queue_are_apart" {
  command = apply
  assert {
    condition     = shoal_nfs_volume.this["vol01"].policy == "mail" && shoal_nfs_volume.this["queue"].policy == "queue"
    error_message = "A volume has the wrong policy."
  }
  assert {
    condition     = !contains(shoal_nfs_export_rule.this["storage1/mail"].clients, "10.20.2.0/24")
    error_message = "Switches may mount mail."
  }
  assert {
    condition     = shoal_nfs_volume.this["vol01"].deletion_protection && shoal_server.this["storage1"].deletion_protection
    error_message = "Storage is not protected."
  }
}

run "open_to_the_world" {
  command = plan
  variables {
    mail_clients = ["0.0.0.0/0"]
  }
  expect_failures = [var.mail_clients]
}

run "open_to_the_world_ipv6" {
  command = plan
  variables {
    queue_clients = ["::/0"]
  }
  expect_failures = [var.queue_clients]
}

run "unknown_server" {
  command = plan
  variables {
    volumes = { vol01 = { server = "storage9" } }
  }
  expect_failures = [var.volumes]
}

run "an_existing_filer" {
  command = apply
  variables {
    servers  = {}
    volumes  = {}
    external = { vol01 = { source = "filer.example.net:/mail", id = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51" } }
  }
  assert {
    condition     = output.volumes["vol01"].source == "filer.example.net:/mail"
    error_message = "The filer's volume is not passed on."
  }
}
