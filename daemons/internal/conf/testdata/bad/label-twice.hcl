server { name = "box1" }
listener "imap" { address = ":143" }
listener "imap" { address = ":144" }
