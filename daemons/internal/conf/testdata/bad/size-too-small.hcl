server { name = "box1" }
limits { message_size = "10 B" }
