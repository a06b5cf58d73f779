server {
  name = "a"
  name = "b"
}
