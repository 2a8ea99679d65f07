package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/test/lab"
)

// plan is what one lab is asked for; the inner parts receive it as JSON.
type plan struct {
	Command      []string
	Images       []string // references to copy from the machine's engine
	Registries   []string // names to start registries under
	Publish      []string // host:port on the machine that leads to the same port in the lab
	Moto         bool
	MetadataMock string // path of the mock's configuration, "" for no mock
	State        string // directory that this lab alone uses, kept from one lab to the next
	CgroupParent string
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// parsePlan reads the command line of `lab run`. It returns flag.ErrHelp after it printed the flags.
func parsePlan(arguments []string) (plan, error) {
	var p plan
	flags := flag.NewFlagSet("lab run", flag.ContinueOnError)
	flags.Var((*list)(&p.Images), "image", "copy this image from the machine's engine (repeatable)")
	flags.Var((*list)(&p.Registries), "registry", "start a registry under this `host` name (repeatable); its user and password are in $"+lab.DirectoryVariable+"/registries/HOST/")
	flags.Var((*list)(&p.Publish), "publish", "make `[address:]port` of the lab's loopback reachable on the machine (repeatable; address defaults to 127.0.0.1)")
	flags.BoolVar(&p.Moto, "moto", false, "start moto_server and point the AWS variables to it")
	flags.StringVar(&p.MetadataMock, "metadata-mock", "", "start an EC2 metadata service with this configuration `file`")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Usage: lab run [FLAGS] [--] COMMAND...")
		flags.PrintDefaults()
	}
	if err := flags.Parse(arguments); errors.Is(err, flag.ErrHelp) {
		return plan{}, err
	} else if err != nil {
		return plan{}, fmt.Errorf("%w: %w", err, errUsage)
	}
	p.Command = flags.Args()
	if len(p.Command) == 0 {
		return plan{}, fmt.Errorf("no command to run: %w", errUsage)
	}
	for _, host := range p.Registries {
		if _, ok := lab.Names[host]; !ok {
			return plan{}, fmt.Errorf("--registry %s: a lab has no such name: %w", host, errUsage)
		}
	}
	for i, address := range p.Publish {
		if !strings.Contains(address, ":") {
			address = "127.0.0.1:" + address
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return plan{}, fmt.Errorf("--publish: %w: %w", err, errUsage)
		}
		p.Publish[i] = address
	}
	slices.Sort(p.Images)
	p.Images = slices.Compact(p.Images)
	return p, nil
}

// argument encodes the plan for an inner part.
func (p plan) argument() (string, error) {
	encoded, err := json.Marshal(p)
	return string(encoded), err
}

// decodePlan is the inverse of argument.
func decodePlan(arguments []string) (plan, error) {
	var p plan
	if len(arguments) != 1 {
		return p, fmt.Errorf("this command is the lab's own: %w", errUsage)
	}
	return p, json.Unmarshal([]byte(arguments[0]), &p)
}

// The files that go from part to part, in this order from descriptor 3: the lock on the state, one listener for each
// published port, and the machine's engine when images are to be copied.
const firstFile = 3

func (p plan) listenerFile(i int) uintptr { return uintptr(firstFile + 1 + i) }

func (p plan) engineFile() uintptr { return uintptr(firstFile + 1 + len(p.Publish)) }

func (p plan) fileCount() int {
	count := 1 + len(p.Publish)
	if len(p.Images) > 0 {
		count++
	}
	return count
}
