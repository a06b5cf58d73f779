server { name = "box1" }
limits { ratio = 1.01 }
