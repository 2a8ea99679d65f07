#!/usr/bin/env bash
# Gives a finished qcow2 the shapes that VMware takes: a stream-optimized vmdk with its OVF description and manifest, and a
# list of checksums of everything.
#
# In:  DISK (a .qcow2), DISK_GIB, CPUS, MEMORY_MIB, DISTRIBUTION; qemu-img.
# Out: NAME.vmdk, NAME.ovf, NAME.mf and SHA256SUMS beside the disk. What is half-made is removed again.
set -euo pipefail

die() { printf 'ovf: %s\n' "$*" >&2; exit 1; }

: "${DISK:?}" "${DISK_GIB:?}" "${CPUS:?}" "${MEMORY_MIB:?}" "${DISTRIBUTION:?}"
[[ $DISK == *.qcow2 && -s $DISK ]] || die "$DISK is no qcow2 disk"
command -v qemu-img >/dev/null || die "qemu-img is missing: install qemu-utils"

cd "$(dirname "$DISK")"
name=$(basename "$DISK" .qcow2)
trap '[[ $? == 0 ]] || rm -f "$name.vmdk" "$name.ovf" "$name.mf" SHA256SUMS' EXIT

# VMware's names of the systems it knows.
case $DISTRIBUTION in
debian-*) system_id=96 system_name=debian12_64Guest ;;
ubuntu-*) system_id=94 system_name=ubuntu64Guest ;;
*) die "$DISTRIBUTION is none of VMware's systems: add its name to ${BASH_SOURCE[0]##*/}" ;;
esac

# Stream-optimized: compressed, and what ESXi and OVF readers import. vmdk knows the adapter's type as well.
qemu-img convert -O vmdk -o subformat=streamOptimized,adapter_type=lsilogic "$name.qcow2" "$name.vmdk"

# The network card and the disk's controller are VMware's own, whose drivers are in every distribution's generic kernel. The CD
# drive is for the NoCloud seed. Hardware version 17 is that of ESXi 7.
cat >"$name.ovf" <<OVF
<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
    xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="disk-file" ovf:href="$name.vmdk" ovf:size="$(stat --format %s "$name.vmdk")"/>
  </References>
  <DiskSection>
    <Info>The disk of the virtual machine</Info>
    <Disk ovf:diskId="disk" ovf:fileRef="disk-file" ovf:capacity="$DISK_GIB" ovf:capacityAllocationUnits="byte * 2^30"
        ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>The network on which the node serves</Info>
    <Network ovf:name="node">
      <Description>The network on which the node serves</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="$name">
    <Info>A flowagent node</Info>
    <Name>$name</Name>
    <OperatingSystemSection ovf:id="$system_id" vmw:osType="$system_name">
      <Info>The system of the node</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>What the node needs</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>$name</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-17</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:ElementName>$CPUS processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>$CPUS</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>$MEMORY_MIB MiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>$MEMORY_MIB</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>SCSI controller</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>IDE controller</rasd:ElementName>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:ResourceType>5</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Disk</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/disk</rasd:HostResource>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item ovf:required="false">
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>false</rasd:AutomaticAllocation>
        <rasd:ElementName>CD drive for the seed</rasd:ElementName>
        <rasd:InstanceID>6</rasd:InstanceID>
        <rasd:Parent>4</rasd:Parent>
        <rasd:ResourceType>15</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>node</rasd:Connection>
        <rasd:ElementName>Network card</rasd:ElementName>
        <rasd:InstanceID>7</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
OVF

for file in "$name.ovf" "$name.vmdk"; do
  printf 'SHA256(%s)= %s\n' "$file" "$(sha256sum "$file" | cut -d ' ' -f 1)"
done >"$name.mf"
sha256sum "$name.qcow2" "$name.vmdk" "$name.ovf" "$name.mf" >SHA256SUMS
