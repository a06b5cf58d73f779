server { name = "box1" }
limits { recipients = 70000 }
