server { name = "box1" }
greeting = "hello ${name}"
