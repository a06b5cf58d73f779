server { name = "box1" }
directory { uris = ["ldap://127.0.0.1/o=shoal"] }
