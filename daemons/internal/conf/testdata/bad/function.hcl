server { name = "box1" }
greeting = upper("x")
