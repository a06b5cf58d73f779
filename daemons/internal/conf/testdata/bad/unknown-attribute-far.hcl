server { name = "box1" }
log { colour = "red" }
