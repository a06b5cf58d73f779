mock_provider "shoal" {}

variables {
  master = { name = "vault1", address = "10.20.4.1" }
  # write-only, and set: a run of a test gives ephemeral variables to its plan and its apply
  master_password = "a-password-of-some-length"
}

run "the_master_alone" {
  command = apply
  assert {
    condition     = output.uris == ["ldaps://10.20.4.1:636"] && shoal_server.master.deletion_protection
    error_message = "The master does not serve reads, or is not protected."
  }
}

run "the_master_has_a_password_to_follow_another_one" {
  command = apply
  variables {
    master_password         = "a-password-of-its-own"
    master_password_version = 7
  }
  assert {
    condition     = shoal_server.master.password_wo_version == 7 && shoal_server.master.password_wo == null
    error_message = "The password is not written, or it is in the state."
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
