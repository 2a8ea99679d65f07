# What may differ between images, each with its meaning and its limits. What an image is about has no default; everything else
# has one that is safe.

# Both kinds of image

variable "image_name" {
  type        = string
  description = "What the image is called; a version is appended. Letters, digits, and - inside."
  default     = "flowagent-node"
  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$", var.image_name))
    error_message = "The image_name must be 1 to 62 lower-case letters, digits or -, and begin and end with a letter or digit."
  }
}

variable "image_version" {
  type        = string
  description = "The version in the image's name, such as 2026.11.1. Empty: the time of the build, 20261124-083000."
  default     = ""
  validation {
    condition     = can(regex("^[A-Za-z0-9._-]{0,40}$", var.image_version))
    error_message = "The image_version must be at most 40 letters, digits, dots, - or _."
  }
}

variable "distribution" {
  type        = string
  description = "The system of the source image: debian-13, ubuntu-24.04 or ubuntu-22.04."
  default     = "debian-13"
  validation {
    condition     = contains(["debian-13", "ubuntu-24.04", "ubuntu-22.04"], var.distribution)
    error_message = "The distribution must be debian-13, ubuntu-24.04 or ubuntu-22.04."
  }
}

variable "architecture" {
  type        = string
  description = "The processor that the image is for: amd64 or arm64."
  default     = "amd64"
  validation {
    condition     = contains(["amd64", "arm64"], var.architecture)
    error_message = "The architecture must be amd64 or arm64."
  }
}

variable "git_revision" {
  type        = string
  description = "The commit that the image is made from, for its tags and its manifest. Empty: not noted."
  default     = ""
  validation {
    condition     = can(regex("^([0-9a-f]{7,64}(-dirty)?)?$", var.git_revision))
    error_message = "The git_revision must be the hexadecimal name of a commit, such as `git rev-parse HEAD` prints, or empty."
  }
}

# The node, which is the same in every image

variable "agent_binary" {
  type        = string
  description = "Path of the flowagent binary for the architecture, such as `make build` makes."
  default     = ".build/bin/flowagent"
  validation {
    condition     = fileexists(var.agent_binary)
    error_message = "The agent_binary is not there: run make build, or name the path of a flowagent binary."
  }
}

variable "node_config" {
  type        = string
  description = "Path of the node's configuration, which becomes /etc/flowagent/config.yaml. It is checked before a machine starts."
  validation {
    condition     = fileexists(var.node_config)
    error_message = "The node_config is not there: write one with flowagent config init."
  }
}

variable "node_drop_ins" {
  type        = list(string)
  description = "Paths of YAML files over that, which become /etc/flowagent/config.d/NAME."
  default     = []
  validation {
    condition     = alltrue([for path in var.node_drop_ins : fileexists(path) && can(regex("\\.yaml$", path))])
    error_message = "Each of node_drop_ins must be the path of a file that ends in .yaml."
  }
}

variable "node_files" {
  type        = map(string)
  description = "Other files of the node: the absolute path there, and the path here. The configuration's Compose files belong to them; secrets don't."
  default     = {}
  validation {
    condition     = alltrue([for there, here in var.node_files : startswith(there, "/") && fileexists(here)])
    error_message = "Each of node_files must be an absolute path on the node = the path of a file that is there."
  }
}

variable "image_archives" {
  type        = list(string)
  description = "Paths of archives of container images (docker save or OCI layout), for the directory that the configuration names as workload.pull.archives. Other images are pulled by their digests."
  default     = []
  validation {
    condition     = alltrue([for path in var.image_archives : fileexists(path) && can(regex("\\.tar(\\.gz)?$", path))])
    error_message = "Each of image_archives must be the path of a file that ends in .tar or .tar.gz."
  }
}

variable "registry_passwords" {
  type        = map(string)
  description = "Passwords of registries for the build: the name of the secret in the configuration, and its value. Best from PKR_VAR_registry_passwords. ECR needs none, but the rights of instance_profile."
  default     = {}
  sensitive   = true
  validation {
    condition     = alltrue([for name, value in var.registry_passwords : length(name) > 0 && length(value) > 0])
    error_message = "Each of registry_passwords must have a name and a value."
  }
}

variable "profiles" {
  type        = list(string)
  description = "Settings for the node beside the agent's own: base (engine, journal, names, clock, updates), hardening (packet filter, SSH, kernel). AMIs get ec2 as well."
  default     = ["base", "hardening"]
  validation {
    condition     = alltrue([for name in var.profiles : contains(["base", "hardening"], name)])
    error_message = "The profiles must be base, hardening, or both."
  }
}

variable "engine" {
  type        = string
  description = "Where Docker Engine and Compose come from: distribution, or docker for Docker's own repository, whose key is verified."
  default     = "distribution"
  validation {
    condition     = contains(["distribution", "docker"], var.engine)
    error_message = "The engine must be distribution or docker."
  }
}

variable "engine_version" {
  type        = string
  description = "The version of the engine's package, such as 26.1.5. Empty: what the repository offers."
  default     = ""
  validation {
    condition     = can(regex("^[0-9A-Za-z.+:~-]*$", var.engine_version))
    error_message = "The engine_version must be a version as apt-cache madison prints it, or empty."
  }
}

variable "compose_version" {
  type        = string
  description = "The version of the Compose plugin's package, likewise."
  default     = ""
  validation {
    condition     = can(regex("^[0-9A-Za-z.+:~-]*$", var.compose_version))
    error_message = "The compose_version must be a version as apt-cache madison prints it, or empty."
  }
}

variable "allow_files" {
  type        = list(string)
  description = "Patterns of files, in the system or in an image, in which credentials are known to be harmless, such as /app/lib/tests/*.pem."
  default     = []
  validation {
    condition     = alltrue([for pattern in var.allow_files : can(regex("^/[^,\"]+$", pattern))])
    error_message = "Each of allow_files must be a pattern of absolute paths, without commas."
  }
}

variable "reports" {
  type        = string
  description = "Directory for what is known of the images, in one directory for each source (aws, onprem): the software bills of materials (SPDX, CycloneDX), and what its verification found."
  default     = "reports"
  validation {
    condition     = length(var.reports) > 0
    error_message = "The reports must be the path of a directory."
  }
}

# AWS

variable "region" {
  type        = string
  description = "The AWS region in which the image is made."
  default     = "eu-central-1"
  validation {
    condition     = can(regex("^[a-z]{2,3}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region must be the name of an AWS region, such as eu-central-1."
  }
}

variable "copy_to" {
  type        = map(string)
  description = "Regions that get a copy of the AMI, each with the KMS key (id, ARN or alias/NAME) that encrypts it there; an empty key is the region's default one."
  default     = {}
  validation {
    condition     = alltrue([for region, key in var.copy_to : can(regex("^[a-z]{2,3}(-[a-z]+)+-[0-9]$", region))])
    error_message = "The keys of copy_to must be names of AWS regions, such as eu-west-1."
  }
  validation {
    condition     = alltrue([for region, key in var.copy_to : can(regex("^(|(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:)?alias/[A-Za-z0-9/_-]+|(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/)?(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}))$", key))])
    error_message = "The values of copy_to must be KMS keys: an id, an ARN, alias/NAME, or empty for the region's default key."
  }
}

variable "kms_key_id" {
  type        = string
  description = "The KMS key (id, ARN or alias/NAME) that encrypts the AMI's snapshot in its own region. Empty: the account's default key, which can't be shared."
  default     = ""
  validation {
    condition     = can(regex("^(|(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:)?alias/[A-Za-z0-9/_-]+|(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/)?(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}))$", var.kms_key_id))
    error_message = "The kms_key_id must be a key's id or ARN, alias/NAME, or empty for the account's default key."
  }
}

variable "share_with_accounts" {
  type        = list(string)
  description = "Account ids that may launch the AMI. They need the right to use the KMS keys, which must be customer managed."
  default     = []
  validation {
    condition     = alltrue([for id in var.share_with_accounts : can(regex("^[0-9]{12}$", id))])
    error_message = "Each of share_with_accounts must be an account id of twelve digits."
  }
}

variable "instance_type" {
  type        = string
  description = "The type of the instance on which the image is made. Empty: one with two processors of the architecture."
  default     = ""
  validation {
    condition     = can(regex("^([a-z][a-z0-9-]*\\.[a-z0-9-]+)?$", var.instance_type))
    error_message = "The instance_type must be an EC2 instance type, such as c7g.large, or empty."
  }
}

variable "subnet_id" {
  type        = string
  description = "The subnet of the instance. It needs a way out to the distribution's mirror and the registries. Empty: one of the default VPC."
  default     = ""
  validation {
    condition     = can(regex("^(subnet-[0-9a-f]{8,17})?$", var.subnet_id))
    error_message = "The subnet_id must be such as subnet-0123456789abcdef0, or empty."
  }
}

variable "ssh_interface" {
  type        = string
  description = "How Packer reaches the instance: public_ip (its port 22 is open to this machine's public address only), private_ip from within the VPC, or session_manager (no open port; wants instance_profile, the session-manager-plugin here and the SSM agent there, which Debian's AMIs lack)."
  default     = "public_ip"
  validation {
    condition     = contains(["session_manager", "private_ip", "public_ip"], var.ssh_interface)
    error_message = "The ssh_interface must be session_manager, private_ip or public_ip."
  }
}

variable "instance_profile" {
  type        = string
  description = "The instance profile of the instance: with AmazonSSMManagedInstanceCore for session_manager, and the right to pull from ECR where images come from there. Empty: none."
  default     = ""
  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@_-]{0,128}$", var.instance_profile))
    error_message = "The instance_profile must be the name of an instance profile, not its ARN, or empty."
  }
}

variable "volume_gib" {
  type        = number
  description = "The size of the AMI's root volume in GiB: the system, the engine, and the application's images."
  default     = 16
  validation {
    condition     = var.volume_gib >= 8 && var.volume_gib <= 1024 && floor(var.volume_gib) == var.volume_gib
    error_message = "The volume_gib must be a whole number from 8 to 1024."
  }
}

variable "deprecate_after_days" {
  type        = number
  description = "After how many days AWS calls the AMI deprecated, so that nobody starts with it by mistake. Those who use it may go on."
  default     = 90
  validation {
    condition     = var.deprecate_after_days >= 1 && var.deprecate_after_days <= 730 && floor(var.deprecate_after_days) == var.deprecate_after_days
    error_message = "The deprecate_after_days must be a whole number from 1 to 730."
  }
}

variable "protect" {
  type        = bool
  description = "Whether AWS refuses to deregister the AMI, and for 24 hours after that was switched off."
  default     = true
  validation {
    condition     = contains([true, false], var.protect)
    error_message = "The protect switch must be true or false."
  }
}

variable "tags" {
  type        = map(string)
  description = "Tags in addition to those that say what the image is; on the AMI, its snapshots, and on the instance while it runs."
  default     = {}
  validation {
    condition     = alltrue([for name, value in var.tags : can(regex("^.{1,128}$", name)) && can(regex("^.{0,256}$", value)) && !startswith(lower(name), "aws:")])
    error_message = "Names of tags have 1 to 128 characters and don't begin with aws:, values have at most 256."
  }
}

variable "agent_version" {
  type        = string
  description = "The version of agent_binary as flowagent version prints it, for the AMI's tags and manifest. Only an AMI needs it."
  default     = ""
  validation {
    condition     = can(regex("^[A-Za-z0-9._+-]{0,100}$", var.agent_version))
    error_message = "The agent_version must be a version such as v1.2.3."
  }
}

variable "ssm_parameter" {
  type        = string
  description = "The Systems Manager parameter that is to hold the AMI's id in each region, such as /flowviz/production/ami; written last. Empty: none."
  default     = ""
  validation {
    condition     = can(regex("^((/[A-Za-z0-9_.-]+)+)?$", var.ssm_parameter))
    error_message = "The ssm_parameter must be a path such as /flowviz/production/ami, or empty."
  }
}

variable "terraform_variables" {
  type        = string
  description = "File for Terraform with the AMI's id in each region, as the variable ami_ids. Empty: none."
  default     = ""
  validation {
    condition     = can(regex("^(.+\\.auto\\.tfvars\\.json)?$", var.terraform_variables))
    error_message = "The terraform_variables must be a path that ends in .auto.tfvars.json, by which Terraform reads it, or empty."
  }
}

variable "keep_images" {
  type        = number
  description = "How many older AMIs of the same image_name stay, the newest ones. The others are deregistered, but those that an instance or a launch template uses, and those that protect covers. 0: all stay."
  default     = 0
  validation {
    condition     = var.keep_images >= 0 && var.keep_images <= 1000 && floor(var.keep_images) == var.keep_images
    error_message = "The number of keep_images must be a whole number from 0 to 1000."
  }
}

# On-prem

variable "base_disk" {
  type        = string
  description = "Path or URL of the distribution's cloud image, a qcow2 with cloud-init that boots from the BIOS; for VMware one with a generic kernel, such as debian-13-generic-amd64.qcow2. scripts/base-disk.sh makes one from packages."
  default     = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-generic-amd64.qcow2"
  validation {
    condition     = can(regex("^(/|\\./|https://).*\\.(qcow2|img)$", var.base_disk))
    error_message = "The base_disk must be a path that begins with / or ./, or an https:// URL, of a file that ends in .qcow2 or .img."
  }
}

variable "base_disk_checksum" {
  type        = string
  description = "What the base disk must be: sha256:…, sha512:…, or file:URL of a list of checksums."
  default     = "file:https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS"
  validation {
    condition     = can(regex("^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|file:.+)$", var.base_disk_checksum))
    error_message = "The base_disk_checksum must be sha256: and 64 hexadecimal digits, sha512: and 128, or file: and the place of a list. A disk without a checksum is not taken."
  }
}

variable "builder_key" {
  type        = string
  description = "Path of a private SSH key with which Packer logs in to the virtual machine, and nobody after that; the public one is beside it, with .pub. Make both for the build: ssh-keygen -q -t ed25519 -N '' -f builder_key"
  default     = "builder_key"
  validation {
    condition     = can(regex("^[^\\n]+$", var.builder_key))
    error_message = "The builder_key must be the path of a private SSH key, whose public one is beside it."
  }
}

variable "accelerator" {
  type        = string
  description = "What runs the virtual machine: kvm, or tcg, which emulates the processor and is ten times slower."
  default     = "kvm"
  validation {
    condition     = contains(["kvm", "tcg"], var.accelerator)
    error_message = "The accelerator must be kvm or tcg."
  }
}

variable "cpus" {
  type        = number
  description = "Processors of the virtual machine, while the image is made and in its OVF description."
  default     = 2
  validation {
    condition     = var.cpus >= 1 && var.cpus <= 64 && floor(var.cpus) == var.cpus
    error_message = "The number of cpus must be a whole number from 1 to 64."
  }
}

variable "memory_mib" {
  type        = number
  description = "Memory of the virtual machine in MiB, while the image is made and in its OVF description."
  default     = 4096
  validation {
    condition     = var.memory_mib >= 1024 && var.memory_mib <= 1048576 && floor(var.memory_mib) == var.memory_mib
    error_message = "The memory_mib must be a whole number from 1024 to 1048576."
  }
}

variable "disk_gib" {
  type        = number
  description = "The size of the disk in GiB: the system, the engine, the application's images and its data. Not smaller than the base disk."
  default     = 16
  validation {
    condition     = var.disk_gib >= 8 && var.disk_gib <= 4096 && floor(var.disk_gib) == var.disk_gib
    error_message = "The disk_gib must be a whole number from 8 to 4096."
  }
}

variable "output_directory" {
  type        = string
  description = "Where the disks and their description go. It must not be there yet."
  default     = "image"
  validation {
    condition     = length(var.output_directory) > 0
    error_message = "The output_directory must be a path."
  }
}

variable "serial_log" {
  type        = string
  description = "File that gets what the virtual machine says on its serial console while the image is made; /dev/null for nobody."
  default     = "/dev/null"
  validation {
    condition     = can(regex("^[^\\n,]+$", var.serial_log))
    error_message = "The serial_log must be a path without commas."
  }
}
