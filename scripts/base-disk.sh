#!/usr/bin/env bash
# Makes a Debian or Ubuntu disk for a virtual machine from packages: it stands in for a distribution's cloud image where none
# can be downloaded. The disk boots by itself from the BIOS, runs cloud-init, and lets in by SSH whom the seed names.
#
#   scripts/base-disk.sh [--distribution NAME] [--kernel PACKAGE]
#
#   NAME      debian-13 (default), ubuntu-24.04 or ubuntu-22.04
#   PACKAGE   default linux-image-cloud-amd64, or linux-image-virtual of Ubuntu; linux-image-amd64 and linux-image-generic know
#             VMware's devices
#
# In:  the distribution's mirror; root, because the files belong to it; the programs of `scripts/setup.sh image`.
# Out: on standard output the path of the disk, a qcow2 below .build/image/base/NAME, with the kernel that is in it beside it as
#      vmlinuz. It is made once for each state of this script and its options, aside and then renamed, so a disk that has its
#      final name is whole. Delete the directory for newer packages.
# Nothing is mounted and no loop device is used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Room for an engine and an application's images. A larger disk is used whole: cloud-init grows the partition.
readonly disk_mib=8192
# Before the partition: the boot loader, where every BIOS boot loader is, and so much that the partition is aligned.
readonly gap_mib=1
# The time that mmdebstrap and mke2fs give to what they write (2026-01-01), so that equal packages make equal disks.
export SOURCE_DATE_EPOCH=1767225600

say() { printf 'base-disk: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# shellcheck source=scripts/debian.sh
. scripts/debian.sh

distribution=debian-13 kernel=
while (($# > 0)); do
  case $1 in
  --distribution) distribution=${2:-} ;;
  --kernel)
    kernel=${2:-}
    [[ $kernel == linux-image-* ]] || die "--kernel wants a package such as linux-image-amd64"
    ;;
  *) die "unknown argument \"$1\": there are --distribution NAME and --kernel PACKAGE" ;;
  esac
  shift $(($# > 1 ? 2 : 1))
done
# What Debian's and Ubuntu's own cloud images have, as far as a node needs it, and by its name there. Without a renderer of
# cloud-init's network settings cloud-init fails, and nobody gets in: systemd-networkd is one, which Ubuntu reaches by netplan.
case $distribution in
debian-13) suite=$debian_suite kernel=${kernel:-linux-image-cloud-amd64} own=(systemd-resolved) ;;
ubuntu-24.04) suite=noble kernel=${kernel:-linux-image-virtual} own=(ubuntu-keyring lsb-release systemd-resolved netplan.io) ;;
ubuntu-22.04) suite=jammy kernel=${kernel:-linux-image-virtual} own=(ubuntu-keyring lsb-release netplan.io) ;;
*) die "unknown distribution \"$distribution\": it is debian-13, ubuntu-24.04 or ubuntu-22.04" ;;
esac
readonly home=$PWD/.build/image/base/$distribution
readonly log=$home/mmdebstrap.log
((EUID == 0)) || die "the files on the disk belong to root: try again with sudo"
PATH=$PATH:/usr/sbin:/sbin
for program in mmdebstrap mke2fs sfdisk grub-mkimage qemu-img; do
  command -v "$program" >/dev/null || die "$program is missing: run scripts/setup.sh image"
done

packages=(
  "$kernel" initramfs-tools zstd
  systemd-sysv systemd-timesyncd udev dbus libpam-systemd libnss-myhostname kmod
  cloud-init cloud-guest-utils fdisk e2fsprogs
  apt openssh-server sudo ca-certificates apparmor iproute2 procps less
  "${own[@]}"
)

# mmdebstrap knows Debian's by the suite.
mirrors=()
if [[ $distribution == ubuntu-* ]]; then
  for pocket in "$suite" "$suite-updates" "$suite-security"; do
    mirrors+=("deb http://archive.ubuntu.com/ubuntu $pocket main universe")
  done
fi

# shellcheck disable=SC2016 # mmdebstrap's shell is to expand $1, the system's root
options=(
  "${debian_options[@]}"
  --format=directory
  --include="$(IFS=,; printf '%s' "${packages[*]}")"
  # /vmlinuz and /initrd.img are then kept as links to the newest kernel, and the boot loader's menu never changes.
  --essential-hook='printf "do_symlinks = yes\nlink_in_boot = no\n" >"$1/etc/kernel-img.conf"'
  --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*'
  --customize-hook=': >"$1/etc/machine-id"; rm -f "$1/var/lib/dbus/machine-id" "$1/var/lib/systemd/random-seed"'
  --customize-hook='echo localhost >"$1/etc/hostname"'
  --customize-hook='ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"'
  --customize-hook='echo LANG=C.UTF-8 >"$1/etc/default/locale"'
  --customize-hook='chroot "$1" systemctl enable systemd-networkd.service'
)

key=$({
  cat scripts/base-disk.sh
  printf '%s\n' "$suite" "${options[@]}" "${mirrors[@]}"
} | sha256sum | cut -c 1-16)
disk=$home/$key/disk.qcow2
mkdir -p "$home"
exec {lock}>"$home/lock"
flock "$lock" # a second run waits for the first one's disk
if [[ -s $disk ]]; then
  printf '%s\n' "$disk"
  exit 0
fi

# fetch_keys: to $package; $blame is why not.
fetch_keys() {
  blame="Ubuntu's keys can't be fetched: does this machine reach archive.ubuntu.com?"
  curl -fsS -o "$package" "http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/${package##*/}" || return
  blame="$package is not Ubuntu's: its checksum is another one"
  sha256sum --check --status <<<"36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8  $package"
}

# Ubuntu's keys are in Ubuntu only, in a package of which this is one version.
if [[ $distribution == ubuntu-* ]]; then
  keys=/usr/share/keyrings/ubuntu-archive-keyring.gpg
  if [[ ! -s $keys ]]; then
    package=$home/keys/ubuntu-keyring_2023.11.28.1_all.deb keys=$home/keys$keys
    mkdir -p "$home/keys"
    again "the download of Ubuntu's keys" fetch_keys || die "$blame"
    dpkg-deb --extract "$package" "$home/keys"
  fi
  options+=(--keyring="$keys")
fi

say "making a disk of $distribution from packages (about two minutes)"
new=$home/new
rm -rf --one-file-system "$new"
mkdir -p "$new"
trap 'rm -rf --one-file-system "$new"' EXIT

new_log
again mmdebstrap into_log afresh "$new/root" mmdebstrap "${options[@]}" "$suite" "$new/root" "${mirrors[@]}" ||
  die "mmdebstrap failed: the lines above are the end of $log. Does this machine reach a mirror of it?"
cp --dereference "$new/root/vmlinuz" "$new/vmlinuz"

uuid=$(printf '%s' "$key" | sha256sum | sed -E 's/(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-8\4-\5/')
printf 'UUID=%s / ext4 errors=remount-ro 0 1\n' "$uuid" >"$new/root/etc/fstab"
mkdir -p "$new/root/boot/grub"
cat >"$new/root/boot/grub/grub.cfg" <<MENU
linux /vmlinuz root=UUID=$uuid ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
MENU

# The file system is made in place, behind the gap. Whatever GRUB 2.06 can't read is left out, and everything is written now,
# so that no boot is spent on it.
truncate --size "${disk_mib}M" "$new/disk.raw"
mke2fs -q -t ext4 -L root -U "$uuid" -d "$new/root" -O ^metadata_csum_seed,^orphan_file \
  -E "offset=$((gap_mib << 20)),lazy_itable_init=0,lazy_journal_init=0,hash_seed=$uuid" \
  "$new/disk.raw" "$((disk_mib - gap_mib))M"
sfdisk --quiet --no-reread --no-tell-kernel --wipe never --wipe-partitions never "$new/disk.raw" <<TABLE
label: dos
label-id: 0x${key:0:8}
start=${gap_mib}MiB, type=83, bootable
TABLE

# GRUB's two parts: 440 bytes of the first sector, which load what is in the sectors behind it. Both are made for exactly these
# places, so nothing has to be looked up.
# shellcheck disable=SC2016 # GRUB expands these
printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' "$uuid" >"$new/early.cfg"
grub-mkimage --format=i386-pc --prefix=/boot/grub --config="$new/early.cfg" --output="$new/core.img" \
  biosdisk part_msdos ext2 search search_fs_uuid configfile linux minicmd echo
(($(stat --format %s "$new/core.img") < (gap_mib << 20) - 512)) || die "GRUB doesn't fit before the partition"
dd if=/usr/lib/grub/i386-pc/boot.img of="$new/disk.raw" bs=440 count=1 conv=notrunc status=none
dd if="$new/core.img" of="$new/disk.raw" bs=512 seek=1 conv=notrunc status=none

qemu-img convert -O qcow2 "$new/disk.raw" "$new/disk.qcow2"
rm -rf --one-file-system "$new/root" "$new/disk.raw" "$new/early.cfg" "$new/core.img"
for old in "$home"/*/; do
  [[ $old == "$new/" || $old == "$home/keys/" ]] || rm -rf --one-file-system "$old"
done
mv "$new" "$home/$key"
printf '%s\n' "$disk"
