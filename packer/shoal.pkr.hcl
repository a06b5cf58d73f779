# Base and role images by two builders from one definition: the recipes below images/.
#   release  QEMU boots the base image, the role is installed over SSH, the disk that is left is the image
#   fast     no machine: a container of the base's tree with SSH (packer/build fast), whose tree becomes the image
# Both run images/provision on the plan that `go run ./images/tool plan ROLE` writes.

variable "role" {
  type = string
}

variable "version" {
  type    = string
  default = "0.0.0"
}

# Folder with plan/ (of the role), deb/ and release-signers.
variable "stage" {
  type = string
}

variable "ssh_key" {
  type = string
}

variable "output" {
  type    = string
  default = "dist/packer"
}

# release: the base image, its seed (ISO with the label cidata and the public half of ssh_key), kvm where there is hardware
# virtualization, tcg where there is none.
variable "base" {
  type    = string
  default = ""
}

variable "base_checksum" {
  type    = string
  default = "none"
}

variable "seed" {
  type    = string
  default = ""
}

variable "accelerator" {
  type    = string
  default = "kvm"
}

# fast: where the container answers.
variable "host" {
  type    = string
  default = "127.0.0.1"
}

variable "port" {
  type    = number
  default = 22
}

locals {
  name = "shoal-${var.role}-${var.version}"
}

source "qemu" "release" {
  accelerator      = var.accelerator
  machine_type     = "q35"
  headless         = true
  vnc_bind_address = "127.0.0.1"
  cpus             = 2
  memory           = 1024

  disk_image       = true
  use_backing_file = true
  qemu_img_args {
    create = ["-F", "qcow2"]
  }
  iso_url        = var.base
  iso_checksum   = var.base_checksum
  format         = "qcow2"
  disk_size      = "2048M"
  disk_interface = "virtio"
  net_device     = "virtio-net"

  output_directory = "${var.output}/${local.name}"
  vm_name          = "${local.name}.qcow2"

  # The machine's console tells nothing that SSH does not.
  boot_wait            = "-1s"
  ssh_username         = "root"
  ssh_private_key_file = var.ssh_key
  ssh_timeout          = "10m"
  shutdown_command     = "systemctl poweroff"
  shutdown_timeout     = "5m"

  # A -drive here takes the place of Packer's own.
  qemuargs = [
    ["-cpu", "max"],
    ["-drive", "file=${var.output}/${local.name}/${local.name}.qcow2,if=virtio,cache=unsafe,discard=unmap,format=qcow2"],
    ["-drive", "file=${var.seed},if=virtio,format=raw,readonly=on"],
  ]
}

source "null" "fast" {
  ssh_host             = var.host
  ssh_port             = var.port
  ssh_username         = "root"
  ssh_private_key_file = var.ssh_key
  ssh_timeout          = "2m"
}

build {
  sources = ["source.qemu.release", "source.null.fast"]

  provisioner "shell" {
    inline = ["mkdir -p /run/shoal-image"]
  }

  provisioner "file" {
    source      = "${var.stage}/"
    destination = "/run/shoal-image"
  }

  provisioner "shell" {
    inline = [
      "set -eu",
      "apt-get -q update",
      "sh /run/shoal-image/provision install",
      "sh /run/shoal-image/provision seal",
      "sync",
    ]
  }

  post-processor "manifest" {
    output     = "${var.output}/packer-manifest.json"
    strip_path = true
    custom_data = {
      role    = var.role
      version = var.version
    }
  }
}
