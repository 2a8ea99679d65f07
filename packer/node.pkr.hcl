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
    flowagent = {
      source  = "github.com/flowviz/flowagent"
      version = ">= 0.0.0"
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

  # Last of all, since it seals the machine: what comes after would be on every clone.
  provisioner "flowagent" {
    binary             = var.agent_binary
    config             = var.node_config
    drop_ins           = var.node_drop_ins
    files              = var.node_files
    image_archives     = var.image_archives
    registry_passwords = var.registry_passwords

    engine          = var.engine
    engine_version  = var.engine_version
    compose_version = var.compose_version
    profiles        = var.profiles

    allow_files    = var.allow_files
    sbom_directory = "${var.reports}/${source.name}"
    verify_report  = "${var.reports}/${source.name}/verify.json"

    override = {
      aws = { profiles = concat(var.profiles, ["ec2"]) }
    }
  }

  # Only now, and only if it was verified, does anybody find the AMI.
  post-processor "flowagent-publish" {
    only           = ["amazon-ebs.aws"]
    image          = var.image_name
    agent_version  = var.agent_version
    verify_report  = "${var.reports}/${source.name}/verify.json"
    sboms          = [for kind in ["spdx", "cdx"] : "${var.reports}/${source.name}/flowagent-image.${kind}.json"]
    manifest       = "${var.reports}/${source.name}/manifest.json"
    git_revision   = var.git_revision
    ssm_parameter  = var.ssm_parameter
    variables_file = var.terraform_variables
    tags           = var.tags
    dynamic "keep" {
      for_each = var.keep_images > 0 ? [var.keep_images] : []
      content {
        count = keep.value
      }
    }
  }

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
