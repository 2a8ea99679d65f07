// Command image proves that a golden image works, without any cloud: it makes a disk of Debian or Ubuntu, has Packer bake the WMS
// node into it in a virtual machine, boots clones of the result, and looks at what they do. With -bench it compares the boot of
// one clone with that of a boot script instead.
//
//	image [-distribution debian-13] [-bench] [-golden FILE] [-keep] [-bin .build/bin]
//
// What enters are the project's tree, root, QEMU, and the programs in .build/bin: Packer with its plugins, the agent. What
// leaves is a line for each thing that was shown or failed, a timeline of the boot beside that of a boot script, and exit code
// 1 if anything failed. Logs and consoles stay below .build/image/proof; disks stay there with -keep only. Every process that
// it starts ends with it. It never asks a registry or a cloud for anything, only Debian's mirror.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/bench/command"
)

func main() {
	err := run(os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "image:", err)
	if errors.Is(err, command.ErrUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// debian is the distribution whose image is proven where nothing else is said.
const debian = "debian-13"

// options are the command line.
type options struct {
	bin          string
	distribution string
	bench        bool
	golden       string
	keep         bool
}

func run(arguments []string) error {
	var o options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.bin, "bin", filepath.Join(".build", "bin"), "directory of flowagent, packer and its plugins")
	flags.StringVar(&o.distribution, "distribution", debian, "what the image is made of: "+debian+" or ubuntu-24.04")
	flags.BoolVar(&o.bench, "bench", false, "compare the boot with a boot script's, and prove nothing else")
	flags.StringVar(&o.golden, "golden", "", "a golden disk of an earlier run with -keep, to prove without baking")
	flags.BoolVar(&o.keep, "keep", false, "leave the disks")
	if err := command.Parse(flags, arguments); err != nil {
		return err
	}
	// The firmware's credentials, by which a clone gets the key to its secrets, need systemd 252; Ubuntu 22.04 has 249.
	if o.distribution != debian && o.distribution != "ubuntu-24.04" {
		return fmt.Errorf("%w: -distribution %s: it is %s or ubuntu-24.04", command.ErrUsage, o.distribution, debian)
	}
	if o.bench && o.distribution != debian {
		return fmt.Errorf("%w: -bench compares with a boot script for %s only", command.ErrUsage, debian)
	}
	if unix.Geteuid() != 0 {
		return errors.New("the base disk's files belong to root: run this as root, as make image-e2e does")
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()

	root, err := os.Getwd()
	if err == nil {
		o.bin, err = filepath.Abs(o.bin)
	}
	if err == nil && o.golden != "" {
		o.golden, err = filepath.Abs(o.golden)
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "packer", "node.pkr.hcl")); err != nil {
		return fmt.Errorf("start it in the project's root: %w", err)
	}
	p := &proof{options: o, root: root, work: filepath.Join(root, ".build", "image", "proof"), log: os.Stdout}
	if err := p.begin(); err != nil {
		return err
	}
	defer p.close()
	p.all(ctx)
	return p.verdict(context.Cause(ctx))
}

// all goes through the proof, or the comparison. What needs something that failed is left out; what doesn't goes on.
func (p *proof) all(ctx context.Context) {
	if !p.prepare(ctx) || !p.bake(ctx) {
		return
	}
	a, b := &clone{name: "clone-a"}, &clone{name: "clone-b"}
	defer a.close()
	defer b.close()
	golden, ok := p.boots(ctx, a)
	if !ok {
		return
	}
	if p.bench {
		p.race(ctx, a, golden)
		return
	}
	p.serves(ctx, a)
	p.survivesRestarts(ctx, a)
	if p.drainsAndReturns(ctx, a) {
		p.leavesNothing(ctx, a)
	}
	a.close()
	if _, ok := p.boots(ctx, b); ok {
		p.serves(ctx, b)
		p.isAnother(ctx, a, b)
	}
}
