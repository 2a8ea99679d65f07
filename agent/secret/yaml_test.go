package secret

import (
	"encoding/json"
	"errors"
	"testing"
)

func FuzzYAMLBecomesJSON(f *testing.F) {
	f.Add([]byte("a: &x {b: 0123, c: [1_0, ~, true, .inf]}\nd: *x\ne: {<<: [*x], b: \"\\u0000\"}"))
	f.Add([]byte("{\"a\": 1}"))
	f.Add([]byte("- !!int '{}'\n- !!float \"x\"\n- !!bool\n- !!null x"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("&a <<: {b: c}\n? *a\n: d"))
	f.Fuzz(func(t *testing.T, document []byte) {
		converted, err := yamlToJSON(document)
		if err != nil {
			if !errors.Is(err, ErrUnavailable) {
				t.Fatalf("got %v, want it to be ErrUnavailable", err)
			}
			return
		}
		if !json.Valid(converted) {
			t.Fatalf("got %q, which is not JSON", converted)
		}
	})
}
