mock_provider "shoal" {}

variables {
  machine = { name = "box1", address = "fd00:20::1", image = "/images/box.qcow2", control_port = 9144 }
  # write-only, and set: a run of a test gives ephemeral variables to its plan and its apply
  user_data_secret = "{}"
}

run "existing_machine" {
  command = plan
  assert {
    condition     = !output.made && length(shoal_machine.this) == 0
    error_message = "A machine would be made without a hypervisor."
  }
}

run "made_machine" {
  command = apply
  variables {
    hypervisor = { pool = "default", network = "service" }
    enrol      = { server = "box1", url = "https://vault1.example.net:8444", ca_sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  }
  assert {
    condition     = shoal_machine.this[0].ready.address == "[fd00:20::1]:9144" && shoal_machine.this[0].enrol.server == "box1"
    error_message = "The machine is not waited for at its address, or does not enrol."
  }
}

run "network_or_bridge" {
  command = plan
  variables {
    hypervisor = { pool = "default" }
  }
  expect_failures = [var.hypervisor]
}

run "how_long_it_is_waited_for_and_what_becomes_of_its_data" {
  command = apply
  variables {
    hypervisor = { pool = "default", network = "service" }
    machine    = { name = "box1", address = "10.20.3.1", image = "/images/box.qcow2", control_port = 9144, ready_seconds = 1800, keep_data = false }
  }
  assert {
    condition     = shoal_machine.this[0].ready.seconds == 1800 && !shoal_machine.this[0].keep_data
    error_message = "It is not waited for as long as it was told, or its data would stay."
  }
}

run "waiting_for_nothing" {
  command = plan
  variables {
    machine = { name = "box1", address = "10.20.3.1", ready_seconds = 0 }
  }
  expect_failures = [var.machine]
}

run "bad_size" {
  command = plan
  variables {
    machine = { name = "box1", address = "fd00:20::1", size = { memory_mib = 16 } }
  }
  expect_failures = [var.machine]
}
