server { name = "box1" }
words = ["a", 5]
