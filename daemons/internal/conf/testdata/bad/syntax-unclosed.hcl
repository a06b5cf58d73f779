server {
  name = "box1"
