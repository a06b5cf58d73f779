server { name = "box1" }
database { path = "/x" }
