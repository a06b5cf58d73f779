package "shoalctl" {
  section = "admin"
  summary = "command line of a Shoal messaging service"
  description = <<-TEXT
    shoalctl looks after the servers, domains, accounts, queues and mail of a
    Shoal messaging service, and enrols its machines.
  TEXT
  recommends = ["bash-completion"]

  program "shoalctl" { to = "/usr/bin/shoalctl" }

  man        = ["shoalctl*.8"]
  completion = true

  lintian = ["statically-linked-binary [usr/bin/shoalctl]", "hardening-no-pie [usr/bin/shoalctl]"]
}
