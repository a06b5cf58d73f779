server {
  name = "a"
  user = "root:"
}
