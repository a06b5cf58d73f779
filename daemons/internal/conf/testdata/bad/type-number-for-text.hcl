server { name = 5 }
