server { name = "box1" }
drain { timeout = "soon" }
