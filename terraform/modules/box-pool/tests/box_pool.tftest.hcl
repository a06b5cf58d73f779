# What is common to all pools is tested in ../pool.
mock_provider "shoal" {}

variables {
  agents  = { lb1 = "10.20.1.1:9145" }
  members = { box1 = { address = "10.20.2.1" }, box2 = { address = "10.20.2.2" } }
}

run "its_role_and_its_services" {
  command = apply
  assert {
    condition     = output.servers["box1"] == "box" && length(output.places["box1"]) == 6
    error_message = "The members are ${jsonencode(output.places)}."
  }
}

run "removing_the_last_one" {
  command = plan
  variables {
    members = {}
  }
  expect_failures = [var.members]
}
