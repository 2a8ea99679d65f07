// Command fakeagent stands in for flowagent on the target. It notes each call in /var/lib/fakeagent/calls. Where
// /var/lib/fakeagent/COMMAND-SUBCOMMAND holds a text, it prints that and fails; where the text is "hang", it never ends.
// `image install` brings two units and names what makes a running machine heed them, `image sbom` writes two files and
// `image verify` a report, as the real one does; a text that begins with { is the report of a verification that failed.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const home = "/var/lib/fakeagent"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fakeagent:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("no subcommand: %q", arguments)
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	name := arguments[0] + "-" + arguments[1]
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := note("calls", strings.Join(arguments, " ")); err != nil {
		return err
	}
	if len(input) > 0 {
		if err := note(name+".stdin", string(input)); err != nil {
			return err
		}
	}
	if err := noteMachine(name); err != nil {
		return err
	}
	switch order, err := os.ReadFile(filepath.Join(home, name)); {
	case err != nil:
	case string(order) == "hang":
		fmt.Println(name, "hangs")
		time.Sleep(24 * time.Hour) // to be killed; Go ends a program in which nothing waits for time
	default:
		if order[0] == '{' {
			fmt.Printf("%s\n", order)
		}
		return fmt.Errorf("%s", order)
	}
	switch name {
	case "image-install":
		return units()
	case "image-sbom":
		return sboms(arguments)
	case "image-verify":
		fmt.Println(`{"ok": true, "checks": [{"name": "machine-id", "status": "ok", "reason": "empty"}]}`)
	default:
		fmt.Println(name, "done")
	}
	return nil
}

func note(file, text string) error {
	f, err := os.OpenFile(filepath.Join(home, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, text)
	return err
}

// noteMachine keeps this process's environment, and the argument list of every process there is.
func noteMachine(name string) error {
	if err := note(name+".environment", strings.Join(os.Environ(), "\n")); err != nil {
		return err
	}
	lists, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, list := range lists {
		content, err := os.ReadFile(list)
		if err != nil {
			continue // the process has ended
		}
		if err := note(name+".arguments", strings.ReplaceAll(string(content), "\x00", " ")); err != nil {
			return err
		}
	}
	return nil
}

func sboms(arguments []string) error {
	dir, found := strings.CutPrefix(arguments[len(arguments)-1], "--output-dir=")
	if !found {
		return fmt.Errorf("no directory: %q", arguments)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var files []string
	for _, name := range []string{"flowagent-image.spdx.json", "flowagent-image.cdx.json"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(`{"of": "`+name+`"}`), 0o644); err != nil {
			return err
		}
		files = append(files, fmt.Sprintf(`{"path": %q}`, file))
	}
	fmt.Printf(`{"files": [%s]}`, strings.Join(files, ", "))
	return nil
}

func units() error {
	for name, content := range map[string]string{
		"flowagent.service": "[Service]\nExecStart=/usr/bin/flowagent run now\n[Install]\nWantedBy=multi-user.target\n",
		"flowagent.socket":  "[Socket]\nListenStream=9180\n[Install]\nWantedBy=sockets.target\n",
	} {
		if err := os.WriteFile(filepath.Join("/usr/lib/systemd/system", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	activate := `"systemctl restart flowagent.service"`
	if _, err := os.Stat("/etc/systemd/system/systemd-resolved.service"); err == nil {
		activate += `, "systemctl try-restart systemd-resolved.service"`
	}
	fmt.Printf(`{"files": [{"path": "/usr/lib/systemd/system/flowagent.service", "state": "new", "profile": "agent", "mode": "0644"}], "activate": [%s]}`, activate)
	return nil
}
