server { name = "" }
