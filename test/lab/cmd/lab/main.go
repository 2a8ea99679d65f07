// Command lab runs other commands in a private node: Linux namespaces with a Docker Engine of their own, registries
// under ECR host names, and no network. It also runs the project's tests and reports on them.
//
//	lab run [FLAGS] [--] COMMAND...   runs COMMAND in a lab; needs root
//	lab test [ARGUMENTS OF go test]   runs go test and prints one line a package, the output of failed tests and counts
//
// What enters are programs and images of this machine; what leaves is the exit code and output of the command. The
// machine's own engine, packet filter, /run and /etc/hosts are never changed, and everything a lab started ends with it,
// however it ends. `lab run -h` lists the flags.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

const (
	exitFailed = 1
	exitUsage  = 2 // wrong arguments; nothing was tried
	exitNoLab  = 125
)

// The lab executes itself for its inner parts; these names take the place of a command.
const (
	initCommand = "lab-init"
	nodeCommand = "lab-node"
)

// errUsage is wrapped by errors about the command line.
var errUsage = errors.New("run `lab run -h` for its flags")

func init() {
	// The kernel ends a lab when the thread that made it ends: that thread has to be the process's first, which stays.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("no command given: use `lab run` or `lab test`: %w", errUsage))
	}
	var code int
	var err error
	switch name, arguments := os.Args[1], os.Args[2:]; name {
	case "run":
		code, err = runLab(arguments)
	case "test":
		code, err = runTests(arguments, os.Stdout, os.Getenv("CI") != "")
	case initCommand:
		code, err = runInit(arguments)
	case nodeCommand:
		code, err = runNode(arguments)
	default:
		err = fmt.Errorf("unknown command %q: use `lab run` or `lab test`: %w", name, errUsage)
	}
	if err != nil {
		fail(err)
	}
	os.Exit(code)
}

// fail ends with 2 for wrong arguments, else with 125, which (as with docker run) says that the command didn't run.
func fail(err error) {
	fmt.Fprintln(os.Stderr, "lab:", err)
	if errors.Is(err, errUsage) {
		os.Exit(exitUsage)
	}
	os.Exit(exitNoLab)
}
