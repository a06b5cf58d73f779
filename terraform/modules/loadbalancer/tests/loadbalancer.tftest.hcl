mock_provider "shoal" {}

variables {
  nodes = {
    lb1 = { agent = "10.20.1.1:9145", addresses = ["192.0.2.1", "2001:db8::1"] }
    lb2 = { agent = "10.20.1.2:9145", addresses = ["192.0.2.2", "2001:db8::2"] }
  }
}

run "every_pool_on_every_node_in_both_families" {
  command = apply
  assert {
    condition     = length(shoal_lb_pool.this) == 22 && tolist(shoal_lb_pool.this["lb2/imap"].bind) == tolist(["192.0.2.2:143", "[2001:db8::2]:143"])
    error_message = "Pools are missing, or do not listen on both families."
  }
  assert {
    condition     = shoal_lb_pool.this["lb1/imap"].idle_seconds >= 1860
    error_message = "IDLE would be cut."
  }
}

run "no_node" {
  command = plan
  variables {
    nodes = {}
  }
  expect_failures = [var.nodes]
}
