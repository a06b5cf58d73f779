mock_provider "shoal" {}

variables {
  master = { name = "vault1", address = "10.20.4.1" }
}

run "the_master_alone" {
  command = apply
  assert {
    condition     = output.uris == ["ldaps://10.20.4.1:636"] && shoal_server.master.deletion_protection
    error_message = "The master does not serve reads, or is not protected."
  }
}

run "with_shadows" {
  command = apply
  variables {
    shadows = { vault2 = { address = "fd00:20::2" }, vault3 = { address = "10.20.4.3" } }
  }
  assert {
    condition     = output.uris == ["ldaps://[fd00:20::2]:636", "ldaps://10.20.4.3:636", "ldaps://10.20.4.1:636"]
    error_message = "Reads go to ${join(", ", output.uris)}."
  }
  assert {
    condition     = tolist(shoal_directory_shadow.this["vault2"].master) == tolist(["ldaps://10.20.4.1:636"])
    error_message = "A shadow follows somebody else than the master."
  }
}

run "its_own_shadow" {
  command = plan
  variables {
    shadows = { vault1 = { address = "10.20.4.1" } }
  }
  expect_failures = [var.shadows]
}
