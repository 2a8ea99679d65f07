// Command tables writes docs/reference/infrastructure.md: the inputs and outputs of each Terraform module below
// infrastructure/, as tables.
//
//	go run ./tables           writes the page
//	go run ./tables -check    ends with 1 where the page isn't what would be written
//
// What enters are the modules' own descriptions, types and defaults; nothing is said in the page that isn't said there.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-config-inspect/tfconfig"
)

const page = "docs/reference/infrastructure.md"

const head = `<!-- Written by test/infra/tables; don't edit it. make infra-test fails where it is out of step. -->
# Infrastructure: inputs and outputs

The [guide](../guides/infrastructure.md) leads from an empty account to a serving production; this is what can be set, and
what comes out. Every value that is refused says what to do instead.
`

// modules are the directories below infrastructure/, with what they are.
var modules = []struct{ dir, title, about string }{
	{"", "One environment", "The root module. `environments/` has the values of staging and of production."},
	{"bootstrap", "Bootstrap", "Once in each account, before everything else: where states are kept."},
	{"modules/network", "Module network", "The VPC. Its variables and outputs are called as in terraform-aws-modules/vpc."},
	{"modules/bucket", "Module bucket", "A private bucket that keeps versions."},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("tables: ")
	root := flag.String("root", "../..", "the repository")
	check := flag.Bool("check", false, "write nothing; end with 1 where the page isn't what would be written")
	flag.Parse()
	want, err := render(filepath.Join(*root, "infrastructure"))
	if err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(*root, page)
	if !*check {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			log.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		log.Fatalf("%s is out of step with infrastructure/: run go -C test/infra run ./tables", page)
	}
}

func render(infrastructure string) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(head)
	for _, m := range modules {
		module, problems := tfconfig.LoadModule(filepath.Join(infrastructure, m.dir))
		if problems.HasErrors() {
			return nil, fmt.Errorf("read infrastructure/%s: %w", m.dir, problems.Err())
		}
		fmt.Fprintf(&out, "\n## %s: `%s`\n\n%s\n", m.title, filepath.Join("infrastructure", m.dir), m.about)
		out.WriteString("\n| Input | Type | Default | Meaning |\n| --- | --- | --- | --- |\n")
		for _, name := range slices.Sorted(maps.Keys(module.Variables)) {
			v := module.Variables[name]
			standard := "**required**"
			if !v.Required {
				text, err := json.Marshal(v.Default)
				if err != nil {
					return nil, fmt.Errorf("default of %s in infrastructure/%s: %w", name, m.dir, err)
				}
				standard = "`" + string(text) + "`"
			}
			if v.Description == "" {
				return nil, fmt.Errorf("infrastructure/%s: variable %s has no description", m.dir, name)
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", name, kind(v.Type), cell(standard), cell(v.Description))
		}
		out.WriteString("\n| Output | Meaning |\n| --- | --- |\n")
		for _, name := range slices.Sorted(maps.Keys(module.Outputs)) {
			if module.Outputs[name].Description == "" {
				return nil, fmt.Errorf("infrastructure/%s: output %s has no description", m.dir, name)
			}
			fmt.Fprintf(&out, "| `%s` | %s |\n", name, cell(module.Outputs[name].Description))
		}
	}
	return out.Bytes(), nil
}

// kind puts a type on one line.
func kind(text string) string {
	return "`" + strings.Join(strings.Fields(text), " ") + "`"
}

// cell keeps a text in its place in a table.
func cell(text string) string {
	text = strings.ReplaceAll(text, "|", `\|`)
	// Markdown takes <name> for HTML outside code.
	if !strings.HasPrefix(text, "`") {
		text = strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(text)
	}
	return text
}
