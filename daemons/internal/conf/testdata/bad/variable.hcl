server { name = "box1" }
greeting = env.HOME
