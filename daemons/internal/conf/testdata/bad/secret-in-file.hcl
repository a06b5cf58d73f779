server { name = "box1" }
directory {
  uris = ["ldap://127.0.0.1"]
  bind_dn = "cn=a"
  password = "s3cret"
}
