server { name = "box1" }
relay = "mail.example.test:0"
