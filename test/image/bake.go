package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// diskGiB is the size of the golden disk, the smallest that the template takes.
const diskGiB = 8

// prepare makes what the image is baked from.
func (p *proof) prepare(ctx context.Context) bool {
	return p.show(ctx, "a disk of "+p.distribution+" with its own boot loader, from packages", func(ctx context.Context) (string, error) {
		var err error
		if p.base, err = p.run(ctx, "base-disk", nil, "scripts/base-disk.sh", "--distribution", p.distribution); err != nil {
			return "", err
		}
		p.kernel = filepath.Join(filepath.Dir(p.base), "vmlinuz")
		return sizeOf(p.base)
	}) && p.show(ctx, "machines run by", func(ctx context.Context) (detail string, err error) {
		p.accelerator, detail = p.findAccelerator(ctx)
		return detail, nil
	}) && p.show(ctx, "the images of examples/wms, as an archive", func(ctx context.Context) (string, error) {
		var err error
		if p.images, err = p.run(ctx, "images", nil, "test/image/images.sh"); err != nil {
			return "", err
		}
		return sizeOf(p.images)
	})
}

// bake has Packer make the golden disk, unless there is one.
func (p *proof) bake(ctx context.Context) bool {
	if p.golden != "" {
		fmt.Fprintf(p.log, "      the golden disk is one of before: %s\n", p.golden)
		return true
	}
	output := filepath.Join(p.work, "golden")
	return p.show(ctx, "the templates are valid, and refuse what is not", func(ctx context.Context) (string, error) {
		out, err := p.run(ctx, "templates", nil, "test/image/templates.sh", p.bin)
		return fmt.Sprintf("%d checks", strings.Count("\n"+out, "\nok ")), err
	}) && p.show(ctx, "Packer bakes the WMS node", func(ctx context.Context) (string, error) {
		variables, err := p.templateVariables(output)
		if err != nil {
			return "", err
		}
		arguments := []string{filepath.Join(p.bin, "packer"), "build", "-color=false", "-timestamp-ui", "-only=node.qemu.onprem"}
		for name, value := range variables {
			arguments = append(arguments, "-var="+name+"="+value)
		}
		// Where templates.sh installed the plugins.
		installed := filepath.Join(p.root, ".build", "packer")
		env := []string{"PACKER_PLUGIN_PATH=" + filepath.Join(installed, "plugins"), "PACKER_CONFIG_DIR=" + installed, "CHECKPOINT_DISABLE=1"}
		if _, err := p.run(ctx, "packer", env, append(arguments, "packer")...); err != nil {
			return "", err
		}
		disks, err := filepath.Glob(filepath.Join(output, "*.qcow2"))
		if err != nil || len(disks) != 1 {
			return "", fmt.Errorf("there are %d disks in %s, want one", len(disks), output)
		}
		p.golden = disks[0]
		return sizeOf(p.golden)
	}) && p.show(ctx, "the checksums beside the disk are those of disk, vmdk and OVF, and the vmdk holds the same", func(ctx context.Context) (string, error) {
		if _, err := p.run(ctx, "checksums", nil, "sh", "-c", `cd "$1" && sha256sum --check --strict SHA256SUMS`, "sh", output); err != nil {
			return "", err
		}
		vmdk := strings.TrimSuffix(p.golden, ".qcow2") + ".vmdk"
		_, err := p.run(ctx, "compare", nil, "qemu-img", "compare", "-q", "-f", "qcow2", "-F", "vmdk", p.golden, vmdk)
		if err != nil {
			return "", err
		}
		detail, err := sizeOf(vmdk)
		return detail, errors.Join(err, os.Remove(vmdk))
	})
}

// templateVariables say what to bake, and make the key to log in with.
func (p *proof) templateVariables(output string) (map[string]string, error) {
	user, err := p.newLogin()
	if err != nil {
		return nil, err
	}
	key := filepath.Join(p.work, "builder_key")
	if err := errors.Join(os.WriteFile(key, []byte(user.private), 0o600), os.WriteFile(key+".pub", []byte(user.authorized+"\n"), 0o644)); err != nil {
		return nil, err
	}
	sum, err := sha256Of(p.base)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"image_name":         "wms-node",
		"image_version":      "proof",
		"distribution":       p.distribution,
		"base_disk":          p.base,
		"base_disk_checksum": "sha256:" + sum,
		"builder_key":        key,
		"accelerator":        string(p.accelerator),
		"memory_mib":         strconv.Itoa(memory),
		"disk_gib":           strconv.Itoa(diskGiB),
		"output_directory":   output,
		"serial_log":         filepath.Join(p.work, "packer-console.log"),
		"agent_binary":       filepath.Join(p.bin, "flowagent"),
		"node_config":        "test/image/node/config.yaml",
		"node_files": `{
			"/etc/flowagent/compose.yaml" = "examples/wms/compose.yaml"
			"/etc/flowagent/calm.yaml"    = "test/image/node/calm.yaml"
			"/etc/systemd/system/flowagent.service.d/age-identity.conf" = "test/image/node/age-identity.conf"
		}`,
		"reports":        filepath.Join(p.work, "reports"),
		"image_archives": `["` + p.images + `"]`,
	}, nil
}

func sha256Of(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func sizeOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d MiB", info.Size()>>20), nil
}
