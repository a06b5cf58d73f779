server { name = "box1" }
directory {
  uris = ["ldap://127.0.0.1"]
  password_file = "good.secret"
}
