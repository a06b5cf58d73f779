server { name = "box1" }
drain { timeout = 30 }
