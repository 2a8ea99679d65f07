package config

import (
	_ "embed"
	"slices"
)

//go:generate go run ./internal/generate

var (
	//go:embed starter.yaml
	starter []byte
	//go:embed schema.json
	schema []byte
)

// Starter returns a commented configuration to begin with. It parses without a problem.
func Starter() []byte { return slices.Clone(starter) }

// Schema returns the JSON Schema (2020-12) of one layer, for editors. It accepts every document that Parse accepts as
// a layer, so it demands no field that another layer may hold.
func Schema() []byte { return slices.Clone(schema) }
