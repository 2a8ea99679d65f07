package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// accelerator is what runs a machine's processors.
type accelerator string

const (
	kvm accelerator = "kvm"
	tcg accelerator = "tcg" // emulation, which is always there
)

// kvmLimit is what a kernel may take to start with KVM, on a machine that is busy: it takes a second on an idle one.
const kvmLimit = 20 * time.Second

// arguments are QEMU's.
func (a accelerator) arguments() []string {
	if a == kvm {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// Told that rep movsb is fast, kernel and C library copy and clear memory with it, which is emulated a byte at a time.
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,erms=off"}
}

// findAccelerator tries KVM by booting a kernel without a disk, which has to end with that kernel's panic. That /dev/kvm is
// there says little: in a nested machine it may refuse what a kernel needs, or hang.
func (p *proof) findAccelerator(ctx context.Context) (accelerator, string) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return tcg, "emulation, as there is no /dev/kvm"
	}
	ctx, cancel := within(ctx, kvmLimit, "a kernel's start with KVM")
	defer cancel()
	arguments := append([]string{"qemu-system-x86_64"}, kvm.arguments()...)
	out, err := p.run(ctx, "kvm", nil, append(arguments, "-m", "256", "-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "stdio", "-kernel", p.kernel, "-append", "console=ttyS0 panic=-1")...)
	if err == nil && !strings.Contains(out, "Kernel panic") {
		err = errors.New("the kernel said nothing")
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return tcg, fmt.Sprintf("emulation, as KVM doesn't work here (%s)", lastLines(err.Error(), 1))
	}
	return kvm, "KVM"
}
