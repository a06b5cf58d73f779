server { name = "box1" }
greeting { text = "x" }
