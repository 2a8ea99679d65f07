# A disk for the virtual machines of a server room, made in QEMU without any cloud: qcow2 for KVM and Proxmox, and vmdk with an OVF
# description for VMware. Its clones get their names, networks and keys from NoCloud seeds.
#
#   packer init packer && packer build -only='node.qemu.onprem' -var-file=… packer

source "qemu" "onprem" {
  iso_url      = var.base_disk
  iso_checksum = var.base_disk_checksum
  disk_image   = true

  vm_name          = "${local.image}.qcow2"
  output_directory = var.output_directory
  format           = "qcow2"
  disk_size        = "${var.disk_gib}G"
  # What the guest gives back, such as by fstrim, doesn't become part of the image.
  disk_discard       = "unmap"
  disk_detect_zeroes = "unmap"

  accelerator = var.accelerator
  # Emulated, a machine copies memory a byte at a time where it takes the instruction that real processors are fast with.
  cpu_model    = var.accelerator == "kvm" ? "host" : "max,erms=off"
  cpus         = var.cpus
  memory       = var.memory_mib
  headless     = true
  disable_vnc  = true
  machine_type = "pc"
  qemuargs = [
    ["-display", "none"],
    ["-serial", "file:${var.serial_log}"],
    # As by default, but not for everybody in the network.
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
  ]

  # The seed of this machine only: whose key opens it while the image is made. Root itself, and nobody else: the seal takes away
  # every user's way to become root, and what comes after it, verification and power off, needs root still.
  cd_label = "cidata"
  cd_content = {
    meta-data = "instance-id: packer-${local.image}\nlocal-hostname: packer\n"
    user-data = "#cloud-config\n${yamlencode({
      users               = []
      disable_root        = false
      ssh_authorized_keys = [trimspace(file(abspath("${var.builder_key}.pub")))]
    })}"
  }

  ssh_username           = "root"
  ssh_private_key_file   = var.builder_key
  ssh_timeout            = "15m" # without KVM, on a busy machine
  ssh_handshake_attempts = 100   # while the machine boots
  # Free blocks are given back first: no removed file is in the image, which is smaller for that.
  shutdown_command = "fstrim / && systemctl poweroff"
  shutdown_timeout = "5m"
}
