server { name = "box1" }
listener "imap" {
  address = "::1"
}
