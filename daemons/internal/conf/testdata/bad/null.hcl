server { name = "box1" }
greeting = null
