package node

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/flowviz/flowagent/agent/config"
)

// vendorEC2 is what Nitro instances, virtual or metal, x86 or Graviton, have as their system vendor.
const vendorEC2 = "Amazon EC2"

// firmware is what DMI and the hypervisor say about the machine. Nothing in it can be trusted to be there: virtual
// machines leave fields out, and the kernel shows uuid and serial to root only.
type firmware struct {
	vendor, product, biosVersion string
	uuid, serial, boardTag       string
	hypervisor, hypervisorUUID   string // of /sys/hypervisor, which Xen guests have
}

func readFirmware(root string) firmware {
	dmi := func(name string) string { return readFact(root, "sys/class/dmi/id", name) }
	return firmware{
		vendor:         dmi("sys_vendor"),
		product:        dmi("product_name"),
		biosVersion:    dmi("bios_version"),
		uuid:           strings.ToLower(dmi("product_uuid")),
		serial:         strings.ToLower(dmi("product_serial")),
		boardTag:       dmi("board_asset_tag"),
		hypervisor:     readFact(root, "sys/hypervisor/type"),
		hypervisorUUID: strings.ToLower(readFact(root, "sys/hypervisor/uuid")),
	}
}

// provider decides between ec2 and local, and says why, without the network. Nitro instances name their vendor. Xen
// ones don't; they have a UUID that begins with ec2. So does one random UUID in 4096, which is why that counts only on
// a Xen guest, and never against another vendor's name.
//
// Source: "Detect whether a host is an EC2 instance" in the EC2 user guide.
func (f firmware) provider() (config.Provider, string) {
	xen := f.vendor == "Xen" || f.hypervisor == "xen"
	switch {
	case f.vendor == vendorEC2:
		return config.ProviderEC2, "system vendor is Amazon EC2"
	case xen && strings.HasSuffix(f.biosVersion, ".amazon"):
		return config.ProviderEC2, "Amazon's Xen firmware"
	case xen && isEC2UUID(f.hypervisorUUID):
		return config.ProviderEC2, "Xen domain's UUID begins with ec2"
	case xen && isEC2UUID(f.uuid):
		return config.ProviderEC2, "Xen guest's product UUID begins with ec2"
	// Paravirtual Xen guests have no DMI, and kernels built without it hide the hypervisor's type.
	case f.vendor == "" && isEC2UUID(f.hypervisorUUID):
		return config.ProviderEC2, "hypervisor's UUID begins with ec2"
	case f.vendor == "":
		return config.ProviderLocal, "firmware names no vendor"
	default:
		return config.ProviderLocal, "system vendor is " + f.vendor
	}
}

// instanceID is the board's asset tag on Nitro instances, and unknown elsewhere.
func (f firmware) instanceID() string {
	if f.vendor == vendorEC2 && strings.HasPrefix(f.boardTag, "i-") {
		return f.boardTag
	}
	return ""
}

// isEC2UUID knows both spellings, in small letters. SMBIOS 2.6 made the first three fields little-endian; on a table of
// an older version, as EC2's Xen has, Linux shows the bytes as they lie: ec2ae145-d1dc-… becomes 45e12aec-dcd1-….
func isEC2UUID(uuid string) bool {
	if len(uuid) != len("45e12aec-dcd1-b213-94ed-012345abcdef") {
		return false
	}
	return strings.HasPrefix(uuid, "ec2") || uuid[6:8] == "ec" && uuid[4] == '2'
}

// hostname is the kernel's, or unknown where it was never given one.
func hostname(root string) string {
	switch name := readFact(root, "proc/sys/kernel/hostname"); name {
	case "(none)", "localhost", "localhost.localdomain":
		return ""
	default:
		return name
	}
}

// machineID is unknown while it is empty or "uninitialized", as in a golden image before its first boot.
func machineID(root string) string {
	id := readFact(root, "etc/machine-id")
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// readFact reads one line that somebody else wrote: a bounded part, without what a terminal would act on. What can't
// be read is unknown.
func readFact(path ...string) string {
	f, err := os.Open(filepath.Join(path...))
	if err != nil {
		return ""
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, 4096)) // a sysfs file is at most a page
	if err != nil {
		return ""
	}
	printable := strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, string(content))
	return strings.Join(strings.Fields(printable), " ")
}
