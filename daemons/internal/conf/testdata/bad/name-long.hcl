server { name = "a-very-long-server-name" }
