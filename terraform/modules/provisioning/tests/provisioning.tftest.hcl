# What is common to all pools is tested in ../pool.
mock_provider "shoal" {}

variables {
  agents  = { lb1 = "10.20.1.1:9145" }
  members = { provision1 = { address = "10.20.2.1" }, provision2 = { address = "10.20.2.2" } }
}

run "its_role_and_its_services" {
  command = apply
  assert {
    condition     = output.servers["provision1"] == "provision" && length(output.places["provision1"]) == 1
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
