server { name = "box1" }
relay = "mail example:25"
