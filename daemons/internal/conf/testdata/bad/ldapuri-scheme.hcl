server { name = "box1" }
directory { uris = ["http://127.0.0.1"] }
