server { name = "box1 }
