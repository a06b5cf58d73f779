server { name = "box1" }
listener "a" "b" { address = ":143" }
