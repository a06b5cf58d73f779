# What is common to all pools is tested in ../pool.
mock_provider "shoal" {}

variables {
  agents  = { lb1 = "10.20.1.1:9145" }
  members = { webmail1 = { address = "10.20.2.1" }, webmail2 = { address = "10.20.2.2" } }
}

run "its_role_and_its_services" {
  command = apply
  assert {
    condition     = output.servers["webmail1"] == "webmail" && length(output.places["webmail1"]) == 1
    error_message = "The members are ${jsonencode(output.places)}."
  }
}

run "removing_the_last_one" {
  command = plan
  variables {
    members = {}
  }
  assert {
    condition     = length(output.servers) == 0
    error_message = "A service may do without."
  }
}
