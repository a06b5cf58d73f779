server { name = "box1" }
greeting = "aÿþb"
