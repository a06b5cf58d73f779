server { name = "box1" }
listener { address = ":143" }
