server { name = "box1" }
limits { message_size = 25000000 }
