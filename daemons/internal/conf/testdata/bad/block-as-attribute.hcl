server { name = "box1" }
log = "debug"
