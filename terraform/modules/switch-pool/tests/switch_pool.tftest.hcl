mock_provider "shoal" {}

variables {
  agents = { lb1 = "10.20.1.1:9145", lb2 = "10.20.1.2:9145" }
  members = {
    switch1 = { address = "10.20.3.1" }
    switch2 = { address = "fd00:20::2" }
  }
}

run "every_member_in_every_pool" {
  command = apply
  assert {
    condition     = length(shoal_lb_member.this) == 2 * 2 * length(var.services)
    error_message = "There are ${length(shoal_lb_member.this)} members."
  }
  assert {
    condition     = alltrue([for k, m in shoal_lb_member.this : startswith(m.address, "[fd00:20::2]:") || startswith(m.address, "10.20.3.1:")])
    error_message = "An address is not one of the members'."
  }
}

run "a_third_one" {
  command = apply
  variables {
    members = {
      switch1 = { address = "10.20.3.1" }
      switch2 = { address = "fd00:20::2" }
      switch3 = { address = "10.20.3.3" }
    }
  }
  assert {
    condition     = length(shoal_server.this) == 3 && shoal_server.this["switch1"].id == run.every_member_in_every_pool.ids["switch1"]
    error_message = "The others were touched."
  }
}

run "bad_name" {
  command = plan
  variables {
    members = { "Switch 1" = { address = "10.20.3.1" } }
  }
  expect_failures = [var.members]
}

run "bad_address" {
  command = plan
  variables {
    members = { switch1 = { address = "switch1.example.net" } }
  }
  expect_failures = [var.members]
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
