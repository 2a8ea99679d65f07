package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
)

// sysRoot makes a tree of the files that firmware and system would show.
func sysRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content+"\n"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const dmi = "sys/class/dmi/id/"

var (
	nitro = map[string]string{
		dmi + "sys_vendor": "Amazon EC2", dmi + "product_name": "m7i.large", dmi + "bios_vendor": "Amazon EC2",
		dmi + "bios_version": "1.0", dmi + "board_asset_tag": "i-0a1b2c3d4e5f60718",
		dmi + "product_uuid": "ec2f5e2a-0b1c-4d2e-8f3a-123456789abc", dmi + "product_serial": "ec2f5e2a-0b1c-4d2e-8f3a-123456789abc",
	}
	xenHVM = map[string]string{
		dmi + "sys_vendor": "Xen", dmi + "product_name": "HVM domU", dmi + "bios_version": "4.11.amazon",
		dmi + "product_uuid": "EC2AE145-D1DC-13B2-94ED-01234ABCDEF0", dmi + "product_serial": "ec2ae145-d1dc-13b2-94ed-01234abcdef0",
		"sys/hypervisor/type": "xen", "sys/hypervisor/uuid": "ec2ae145-d1dc-13b2-94ed-01234abcdef0",
	}
	qemu = map[string]string{
		dmi + "sys_vendor": "QEMU", dmi + "product_name": "Standard PC (Q35 + ICH9, 2009)", dmi + "bios_version": "1.16.3-debian-1.16.3-2",
		dmi + "product_uuid": "5c9a1f0e-5a55-4c7b-9a0e-2f1f6a4f7b11",
	}
	vmware = map[string]string{
		dmi + "sys_vendor": "VMware, Inc.", dmi + "product_name": "VMware7,1", dmi + "bios_version": "VMW71.00V.21100432.B64.2301110304",
		dmi + "product_uuid": "42180e9c-37c5-4a3e-8d2b-7fbb2e8a9f00", dmi + "product_serial": "VMware-42 18 0e 9c 37 c5 4a 3e-8d 2b 7f bb 2e 8a 9f 00",
	}
)

func TestFirmwareDecidesTheProvider(t *testing.T) {
	with := func(base map[string]string, changes map[string]string) map[string]string {
		all := map[string]string{}
		for _, m := range []map[string]string{base, changes} {
			for path, content := range m {
				all[path] = content
			}
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  config.Provider
	}{
		{"EC2 Nitro", nitro, config.ProviderEC2},
		{"EC2 Nitro without the fields only root reads", map[string]string{dmi + "sys_vendor": "Amazon EC2"}, config.ProviderEC2},
		{"EC2 Xen with hardware virtualization", xenHVM, config.ProviderEC2},
		{"EC2 Xen known by its firmware alone", map[string]string{dmi + "sys_vendor": "Xen", dmi + "bios_version": "4.2.amazon"}, config.ProviderEC2},
		{"EC2 Xen paravirtual, without DMI", map[string]string{"sys/hypervisor/uuid": "ec2ae145-d1dc-13b2-94ed-01234abcdef0"}, config.ProviderEC2},
		{"EC2 Xen with a little-endian product UUID", map[string]string{
			dmi + "sys_vendor": "Xen", dmi + "product_uuid": "45E12AEC-DCD1-B213-94ED-01234ABCDEF0"}, config.ProviderEC2},
		{"EC2 Xen with a little-endian hypervisor UUID", map[string]string{
			"sys/hypervisor/type": "xen", "sys/hypervisor/uuid": "45e12aec-dcd1-b213-94ed-01234abcdef0"}, config.ProviderEC2},
		{"QEMU", qemu, config.ProviderLocal},
		{"QEMU whose random UUID begins with ec2", with(qemu, map[string]string{dmi + "product_uuid": "ec2ae145-d1dc-43b2-94ed-01234abcdef0"}), config.ProviderLocal},
		{"VMware", vmware, config.ProviderLocal},
		{"VMware whose UUID looks little-endian", with(vmware, map[string]string{dmi + "product_uuid": "45e12aec-dcd1-4213-94ed-01234abcdef0"}), config.ProviderLocal},
		{"Xen of one's own", map[string]string{
			dmi + "sys_vendor": "Xen", dmi + "product_name": "HVM domU", dmi + "bios_version": "4.17",
			"sys/hypervisor/type": "xen", "sys/hypervisor/uuid": "0d3c8c5e-7f4d-4d7c-b9f3-ec2000000000"}, config.ProviderLocal},
		{"Xen dom0", map[string]string{
			dmi + "sys_vendor": "Dell Inc.", "sys/hypervisor/type": "xen", "sys/hypervisor/uuid": "00000000-0000-0000-0000-000000000000"}, config.ProviderLocal},
		{"a vendor that mentions EC2", map[string]string{dmi + "sys_vendor": "Not Amazon EC2"}, config.ProviderLocal},
		{"a UUID that is none", map[string]string{"sys/hypervisor/uuid": "ec2"}, config.ProviderLocal},
		{"no files at all", nil, config.ProviderLocal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, because := readFirmware(sysRoot(t, tt.files)).provider()
			if got != tt.want || because == "" {
				t.Errorf("provider = %q because %q, want %q and a reason", got, because, tt.want)
			}
		})
	}
}

func TestALocalIdentityComesFromTheSystemAlone(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  Identity
	}{
		{"all known", map[string]string{
			"proc/sys/kernel/hostname": "wms-1.factory.local", "etc/machine-id": id,
			dmi + "sys_vendor": "Dell Inc.  ", dmi + "product_name": "PowerEdge R750",
		}, Identity{Hostname: "wms-1.factory.local", MachineID: id, Vendor: "Dell Inc.", Product: "PowerEdge R750"}},
		{"a golden image before its first boot", map[string]string{
			"proc/sys/kernel/hostname": "localhost", "etc/machine-id": "uninitialized",
		}, Identity{}},
		{"an empty machine id", map[string]string{"etc/machine-id": ""}, Identity{}},
		{"a machine id with other letters", map[string]string{"etc/machine-id": strings.Repeat("g", 32)}, Identity{}},
		{"firmware that writes to the terminal", map[string]string{
			dmi + "sys_vendor": "Evil\x1b[2J\xff\x00\nInc.", dmi + "product_name": strings.Repeat("p", 1<<20),
		}, Identity{Vendor: "Evil[2J Inc.", Product: strings.Repeat("p", 4096)}},
		{"nothing there", nil, Identity{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, provider := range []config.Provider{config.ProviderAuto, config.ProviderLocal, ""} {
				got, metadata, err := Discover(t.Context(), config.Node{Provider: provider}, Options{SysRoot: sysRoot(t, tt.files)})
				if err != nil || metadata != nil {
					t.Fatalf("Discover(%q) = %v, %v; want no client and no error", provider, metadata, err)
				}
				want := tt.want
				want.Provider = config.ProviderLocal
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("identity by %q (-want +got):\n%s", provider, diff)
				}
			}
		})
	}
}

func TestThisMachineHasAnIdentity(t *testing.T) {
	got, _, err := Discover(t.Context(), config.Node{Provider: config.ProviderLocal}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.Hostname(); err == nil && want != "localhost" && got.Hostname != want {
		t.Errorf("hostname = %q, want %q", got.Hostname, want)
	}
}
