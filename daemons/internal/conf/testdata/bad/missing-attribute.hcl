server { name = "box1" }
listener "imap" {
  tls = true
}
