server { name = "box1" }
greeting = "a\u0000b"
