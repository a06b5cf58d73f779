server { name = "box1" }
log { level = "loud" }
