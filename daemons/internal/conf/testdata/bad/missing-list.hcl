server { name = "box1" }
directory {}
