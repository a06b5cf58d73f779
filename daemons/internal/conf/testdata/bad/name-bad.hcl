server { name = "Box_1" }
