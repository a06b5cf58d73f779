server { name = "box1" }
limits { message_size = "2 TB" }
