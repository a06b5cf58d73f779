server { name = "box1" }
listener "imap" {
  address = "127.0.0.1:143"
  proxy_from = ["10.1.2.3/8"]
}
