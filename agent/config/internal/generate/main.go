// Command generate writes what is published of the configuration's format: agent/config/schema.json for editors and
// docs/reference/configuration.md for people. Both come from the types, their comments and the rules; run it with
// 'go generate ./agent/config' after changing any of them.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// Where the two documents are, from the module's root.
const (
	schemaPath    = "agent/config/schema.json"
	referencePath = "docs/reference/configuration.md"
	sourceDir     = "agent/config"
)

func main() {
	root := flag.String("root", "../..", "the module's root; the default fits go generate, which runs in agent/config")
	flag.Parse()
	if err := generate(*root); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(root string) error {
	comments, err := readComments(filepath.Join(root, sourceDir))
	if err != nil {
		return err
	}
	schema, err := schemaOf(comments)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(root, schemaPath), schema); err != nil {
		return err
	}
	return write(filepath.Join(root, referencePath), referenceOf(comments))
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
