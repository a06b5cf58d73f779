server { name = "box1" }
listener "imap" {
  adress = "127.0.0.1:143"
}
