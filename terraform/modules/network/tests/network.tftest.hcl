variables {
  ipv4 = "10.20.0.0/20"
  ipv6 = "fd00:20::/64"
  members = {
    box1 = { role = "box", number = 1 }
    box2 = { role = "box", number = 2 }
    lb1  = { role = "lb", number = 1 }
  }
}

run "addresses_by_role_and_number" {
  command = plan
  assert {
    condition     = output.members["box2"].ipv4 == "10.20.3.2" && output.members["box2"].ipv6 == "fd00:20::3000:0:0:2"
    error_message = "box2 has ${output.members["box2"].ipv4} and ${output.members["box2"].ipv6}."
  }
  assert {
    condition     = length(distinct([for m in output.members : m.mac])) == 3
    error_message = "Two members have the same MAC address."
  }
}

run "a_new_member_moves_no_other" {
  command = plan
  variables {
    members = {
      box1 = { role = "box", number = 1 }
      box2 = { role = "box", number = 2 }
      box3 = { role = "box", number = 3 }
      lb1  = { role = "lb", number = 1 }
    }
  }
  assert {
    condition     = output.members["box2"].ipv4 == "10.20.3.2"
    error_message = "box2 moved."
  }
}

run "too_many_for_the_network" {
  command = plan
  variables {
    ipv4    = "10.20.0.0/24"
    members = { box15 = { role = "box", number = 15 } }
  }
  expect_failures = [var.members]
}

run "bad_networks" {
  command = plan
  variables {
    ipv4 = "10.20.0.0/8"
    ipv6 = "fd00:20::/48"
  }
  expect_failures = [var.ipv4, var.ipv6]
}
