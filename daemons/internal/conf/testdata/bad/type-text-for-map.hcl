server { name = "box1" }
limits { headers = "X" }
