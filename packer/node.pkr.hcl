# What makes a node of a machine, the same for every source: an AMI and a disk for a server room differ in nothing else.
#
#   packer build packer                                    both
#   packer build -only='node.qemu.onprem' packer           one

packer {
  required_version = ">= 1.11"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "1.3.4"
    }
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "1.0.9"
    }
  }
}

locals {
  now   = timestamp()
  image = "${var.image_name}-${var.image_version != "" ? var.image_version : formatdate("YYYYMMDD-hhmmss", local.now)}"
}

build {
  name    = "node"
  sources = ["source.amazon-ebs.aws", "source.qemu.onprem"]

  # After the seal: the other shapes of the disk, and their checksums.
  post-processor "shell-local" {
    only   = ["qemu.onprem"]
    script = "${path.root}/ovf.sh"
    environment_vars = [
      "DISK=${var.output_directory}/${local.image}.qcow2",
      "DISK_GIB=${var.disk_gib}",
      "CPUS=${var.cpus}",
      "MEMORY_MIB=${var.memory_mib}",
      "DISTRIBUTION=${var.distribution}",
    ]
  }
}
