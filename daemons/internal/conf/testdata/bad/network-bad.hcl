server { name = "box1" }
listener "imap" {
  address = "127.0.0.1:143"
  proxy_from = ["127.0.0.1", "10.0.0.0/99"]
}
