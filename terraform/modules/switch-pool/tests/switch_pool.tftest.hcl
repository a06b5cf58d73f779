# What is common to all pools is tested in ../pool.
mock_provider "shoal" {}

variables {
  agents  = { lb1 = "10.20.1.1:9145" }
  members = { switch1 = { address = "10.20.2.1" }, switch2 = { address = "10.20.2.2" } }
}

run "its_role_and_its_services" {
  command = apply
  assert {
    condition     = output.servers["switch1"] == "switch" && length(output.places["switch1"]) == 3
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

run "variation_1" {
  command = plan
  variables {
    balancers = ["10.20.1.1", "fd00:20::1"]
  }
  assert {
    condition     = output.lmtp["switch1"] == ["10.20.1.1:24", "[fd00:20::1]:24"]
    error_message = "switch1 delivers to ${join(", ", output.lmtp["switch1"])}."
  }
}

run "variation_2" {
  command = plan
  variables {
    variation = 2
    boxes     = { box1 = "10.20.3.1", box2 = "10.20.3.2" }
    assigned  = { switch1 = "box2", switch2 = "box2" }
  }
  assert {
    condition     = output.lmtp["switch1"] == ["10.20.3.2:24"]
    error_message = "switch1 delivers to ${join(", ", output.lmtp["switch1"])}."
  }
}

run "variation_2_without_an_assigned_box" {
  command = plan
  variables {
    variation = 2
    boxes     = { box1 = "10.20.3.1" }
    assigned  = { switch1 = "box1" }
  }
  expect_failures = [var.assigned]
}
