server { name = "box1" }
listener "imap" {
  address = "mail.example.test:143"
}
