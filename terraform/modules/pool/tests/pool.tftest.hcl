mock_provider "shoal" {}

variables {
  role     = "box"
  services = { imap = 143, lmtp = 24 }
  agents   = { lb1 = "10.20.1.1:9145", lb2 = "10.20.1.2:9145" }
  members = {
    box1 = { address = "10.20.3.1" }
    box2 = { address = "fd00:20::2" }
  }
}

run "every_member_in_every_pool" {
  command = apply
  assert {
    condition     = length(shoal_lb_member.this) == 2 * 2 * 2 && alltrue([for s in shoal_server.this : s.role == "box"])
    error_message = "There are ${length(shoal_lb_member.this)} members."
  }
  assert {
    condition     = shoal_lb_member.this["lb2/imap/box1"].address == "10.20.3.1:143" && shoal_lb_member.this["lb1/lmtp/box2"].address == "[fd00:20::2]:24"
    error_message = "An address is not one of the members'."
  }
  assert {
    condition     = output.places["box1"][0] == { agent = "10.20.1.1:9145", pool = "imap", member = "box1" } && length(output.places["box1"]) == 4
    error_message = "Another server would be drained."
  }
}

run "a_third_one" {
  command = apply
  variables {
    members = {
      box1 = { address = "10.20.3.1" }
      box2 = { address = "fd00:20::2" }
      box3 = { address = "10.20.3.3" }
    }
  }
  assert {
    condition     = length(shoal_server.this) == 3 && length(shoal_lb_member.this) == 3 * 2 * 2
    error_message = "There are ${length(shoal_lb_member.this)} members."
  }
}

run "places_only" {
  command = apply
  variables {
    entries = false
    backup  = ["box1"]
  }
  assert {
    condition     = length(shoal_server.this) == 0 && shoal_lb_member.this["lb1/imap/box1"].backup && !shoal_lb_member.this["lb1/imap/box2"].backup
    error_message = "An entry was made, or the wrong member helps out."
  }
}

run "bad_name" {
  command = plan
  variables {
    members = { "Box 1" = { address = "10.20.3.1" } }
  }
  expect_failures = [var.members]
}

run "bad_address" {
  command = plan
  variables {
    members = { box1 = { address = "box1.example.net" } }
  }
  expect_failures = [var.members]
}

run "bad_port" {
  command = plan
  variables {
    services = { imap = 143000 }
  }
  expect_failures = [var.services]
}

run "bad_time" {
  command = plan
  variables {
    drain_seconds = -1
  }
  expect_failures = [var.drain_seconds]
}
