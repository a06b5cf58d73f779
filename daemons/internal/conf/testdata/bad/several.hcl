server { nam = "box1" }
log { level = "loud" }
drain { timeout = 30 }
