server { name = "box1" }
listner "imap" { address = ":143" }
