# Ids that are made up have capitals where OpenTofu makes them up, and names of servers may not.
mock_provider "shoal" {
  mock_resource "shoal_server" {
    defaults = { id = "server1" }
  }
  mock_resource "shoal_directory_shadow" {
    defaults = { id = "server1" }
  }
}

variables {
  domain  = "example.net"
  secrets = { vault1 = "{}" }
  enrol   = { url = "https://vault1.example.net:7443", ca_sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  ipv4    = "10.20.0.0/20"
  ipv6    = "fd00:20::/64"
  sizes = {
    lb      = { count = 1 }
    switch  = { count = 1 }
    box     = { count = 2 }
    shadow  = { count = 1 }
    storage = { count = 1 }
  }
  domains    = { "example.test" = { default_volume = "vol01" } }
  hypervisor = { pool = "default", network = "service", domain_type = "qemu" }
  images     = { lb = "/i/lb", switch = "/i/switch", box = "/i/box", vault = "/i/vault", storage = "/i/storage" }
}

run "two_boxes" {
  command = apply
  assert {
    condition     = join(" ", sort(keys(output.inventory))) == "box1 box2 lb1 storage1 switch1 vault1 vault2"
    error_message = "The servers are ${join(", ", keys(output.inventory))}."
  }
  assert {
    condition     = output.places["vault2"][0].pool == "ldap" && output.directory.uris[0] == "ldaps://10.20.4.2:636"
    error_message = "The master is read before its shadow."
  }
  assert {
    condition     = output.lmtp["switch1"] == ["10.20.1.1:24"]
    error_message = "The switch does not deliver through the balancer."
  }
}

run "a_third_box" {
  command = apply
  variables {
    sizes = {
      lb      = { count = 1 }
      switch  = { count = 1 }
      box     = { count = 3 }
      shadow  = { count = 1 }
      storage = { count = 1 }
    }
  }
  assert {
    condition     = output.inventory["box3"].ansible_host == "10.20.3.3" && output.inventory["box2"].ansible_host == "10.20.3.2"
    error_message = "The third box is not there, or the second has changed."
  }
}

run "no_shadow" {
  command = apply
  variables {
    sizes = { lb = { count = 2 }, switch = { count = 1 }, box = { count = 1 }, storage = { count = 1 } }
  }
  assert {
    condition     = output.directory.uris == ["ldaps://10.20.4.1:636"]
    error_message = "The master does not serve reads."
  }
}

run "variation_2" {
  command = apply
  variables {
    variation = 2
    assigned  = { switch1 = "box2" }
  }
  assert {
    condition     = output.lmtp["switch1"] == ["10.20.3.2:24"]
    error_message = "The switch does not deliver to its box."
  }
}

run "existing_machines_and_a_filer" {
  command = apply
  variables {
    hypervisor       = null
    sizes            = { lb = { count = 1 }, switch = { count = 1 }, box = { count = 1 } }
    addresses        = { lb1 = "192.0.2.10", box1 = "2001:db8::13" }
    external_volumes = { vol01 = { source = "filer:/mail", id = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51" } }
  }
  assert {
    condition     = output.inventory["box1"].ansible_host == "2001:db8::13" && output.volumes["vol01"].source == "filer:/mail"
    error_message = "Addresses or volumes are not those that were given."
  }
}

run "balancers_take_over" {
  command = apply
  variables {
    sizes            = { lb = { count = 2 }, switch = { count = 1 }, box = { count = 1 }, storage = { count = 1 } }
    takeover         = {}
    public_addresses = { lb1 = ["192.0.2.1", "2001:db8::1"], lb2 = ["192.0.2.2", "2001:db8::2"] }
  }
  assert {
    condition     = toset(output.addresses) == toset(["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"])
    error_message = "Every address is there once: ${join(", ", output.addresses)}."
  }
  assert {
    condition = [for v in output.vrrp["lb2"] : "${v.id} ${v.priority} ${join(" ", v.addresses)} ${join(" ", v.peers)}"] == [
      "1 199 192.0.2.1/32 10.20.1.1", "101 199 2001:db8::1/128 fd00:20::1000:0:0:1", "2 200 192.0.2.2/32 10.20.1.1", "102 200 2001:db8::2/128 fd00:20::1000:0:0:1",
    ]
    error_message = "keepalived has ${jsonencode(output.vrrp["lb2"])}."
  }
}

run "taking_over_nothing" {
  command = plan
  variables {
    takeover = {}
  }
  expect_failures = [var.takeover]
}

run "the_last_box" {
  command = plan
  variables {
    sizes = { lb = { count = 1 }, switch = { count = 1 }, box = { count = 0 } }
  }
  expect_failures = [var.sizes]
}

run "waiting_for_years" {
  command = plan
  variables {
    ready_seconds = 100000
  }
  expect_failures = [var.ready_seconds]
}

run "a_second_master" {
  command = plan
  variables {
    sizes = { lb = { count = 1 }, switch = { count = 1 }, box = { count = 1 }, master = { count = 2 } }
  }
  expect_failures = [var.sizes]
}

run "a_bad_size" {
  command = plan
  variables {
    sizes = { lb = { count = 1 }, switch = { count = 1 }, box = { count = 1, memory_mib = 64 } }
  }
  expect_failures = [var.sizes]
}

run "half_a_box" {
  command = plan
  variables {
    sizes = { lb = { count = 1 }, switch = { count = 1 }, box = { count = 1.5 } }
  }
  expect_failures = [var.sizes]
}
