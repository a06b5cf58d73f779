server { name = "box1" }
relay = ":25"
