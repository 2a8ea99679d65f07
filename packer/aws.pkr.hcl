# An AMI: the source is the distribution's own image of that name and owner, and the result is encrypted, answers metadata to
# IMDSv2 only, grows old on a date and can't be deregistered by a slip.
#
#   packer init packer && packer build -only='node.amazon-ebs.aws' -var-file=… packer

locals {
  # Owners are the accounts of Canonical and of Debian's cloud team. In China and GovCloud they have others.
  aws_sources = {
    "debian-13" = {
      owner = "136693071363"
      name  = "debian-13-${var.architecture}-*"
      root  = "/dev/xvda"
    }
    "ubuntu-24.04" = {
      owner = "099720109477"
      name  = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-${var.architecture}-server-*"
      root  = "/dev/sda1"
    }
    "ubuntu-22.04" = {
      owner = "099720109477"
      name  = "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-${var.architecture}-server-*"
      root  = "/dev/sda1"
    }
  }
  aws_source       = local.aws_sources[var.distribution]
  aws_architecture = { amd64 = "x86_64", arm64 = "arm64" }[var.architecture]
  instance_type    = var.instance_type != "" ? var.instance_type : { amd64 = "c7i.large", arm64 = "c7g.large" }[var.architecture]

  # What the post-processor adds once the image is verified begins with flowagent: and says the rest.
  aws_tags = merge(var.tags, {
    Name         = local.image
    distribution = var.distribution
    architecture = var.architecture
  })
}

source "amazon-ebs" "aws" {
  region          = var.region
  ami_name        = local.image
  ami_description = "flowagent node on ${var.distribution}, ${var.architecture}"

  source_ami_filter {
    owners      = [local.aws_source.owner]
    most_recent = true
    filters = {
      name                = local.aws_source.name
      architecture        = local.aws_architecture
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  # The instance that makes the image. Its key is made for it, and gone with it.
  instance_type               = local.instance_type
  subnet_id                   = var.subnet_id
  iam_instance_profile        = var.instance_profile
  associate_public_ip_address = var.ssh_interface == "public_ip" ? true : null
  # Where it must be open at all, then not to the world.
  temporary_security_group_source_public_ip = var.ssh_interface == "public_ip"
  # Root rather than the distribution's user, as onprem.pkr.hcl says why.
  user_data               = "#cloud-config\n${yamlencode({ users = [], disable_root = false })}"
  ssh_username            = "root"
  ssh_interface           = var.ssh_interface
  ssh_timeout             = "10m"
  temporary_key_pair_type = "ed25519"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  launch_block_device_mappings {
    device_name           = local.aws_source.root
    volume_type           = "gp3"
    volume_size           = var.volume_gib
    encrypted             = true
    delete_on_termination = true
  }

  # The AMI.
  imds_support       = "v2.0"
  ena_support        = true
  encrypt_boot       = true
  kms_key_id         = var.kms_key_id
  ami_regions        = keys(var.copy_to)
  region_kms_key_ids = var.copy_to
  ami_users          = var.share_with_accounts
  deprecate_at       = timeadd(local.now, "${24 * var.deprecate_after_days}h")
  deregistration_protection {
    enabled       = var.protect
    with_cooldown = var.protect
  }

  # Packer waits for copies as long as AWS takes: an encrypted one of 16 GiB needs up to half an hour.
  aws_polling {
    delay_seconds = 15
    max_attempts  = 240
  }

  tags            = local.aws_tags
  snapshot_tags   = local.aws_tags
  run_tags        = merge(var.tags, { Name = "packer ${local.image}" })
  run_volume_tags = merge(var.tags, { Name = "packer ${local.image}" })
}
