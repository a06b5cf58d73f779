# Packer 1.7 and later take builders as plugins; Debian's 1.6 has them built in and does not know this block: leave this file
# out of a folder that 1.6 reads (packer/validate and packer/build do).
packer {
  required_plugins {
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = ">= 1.0.0"
    }
  }
}
