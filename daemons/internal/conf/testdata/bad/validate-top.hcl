server { name = "box1" }
greeting = "rude"
