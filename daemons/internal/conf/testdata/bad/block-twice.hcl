server { name = "box1" }
log {}
log {}
