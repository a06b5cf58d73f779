server { name = "box1" }
listener "imap" {
  address = "127.0.0.1:imap"
}
