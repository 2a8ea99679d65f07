package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hostile are documents that must each be refused, with a word on what is wrong with them. They seed the fuzzer too.
var hostile = []struct{ name, data, want string }{
	{"empty", "", "empty"},
	{"only space", " \n\n  \n", "empty"},
	{"null", "null\n", "empty"},
	{"a byte order mark and nothing else", "\xef\xbb\xbf", "empty"},
	{"UTF-16, little end first", "\xff\xfea\x00:\x00", "UTF-16"},
	{"UTF-16, big end first", "\xfe\xff\x00a\x00:", "UTF-16"},
	{"UTF-16 without a mark", "a\x00:\x00", "/x:1:2: NUL byte"},
	{"NUL", "kind: Node\napi\x00", "/x:2:4: NUL byte"},
	{"not UTF-8", "kind: Node\nnode: {environment: caf\xe9}\n", "/x:2:24: the bytes here are not UTF-8"},
	{"a cut-off character", "kind: \xe2\x82", "not UTF-8"},
	{"a terminal's escape", "kind: \x1b[31mNode\n", "control character U+001B"},
	{"DEL", "kind: \x7f", "control character U+007F"},
	{"an escape that hides in quotes", base + "node: {environment: \"\\e[31m\"}\n", "control character U+001B"},
	{"NUL in quotes", base + "workload: {project: \"a\\0\"}", "already set on line 3"},
	{"a line separator", "a: \u2028", "invisible character U+2028"},
	{"a mark in the middle", "a: \ufeff", "invisible character U+FEFF"},
	{"a lone carriage return", "a: 1\rb: 2\n", "/x:1:5: carriage return without a line feed"},
	{"a tab for indentation", "node:\n\tprovider: ec2\n", "a tab where YAML wants spaces"},
	{"a tab within text", base + "node: {environment: a\tb}\n", "text that readers of YAML understand differently (quote it)"},
	{"too large", strings.Repeat("# 4567890\n", maxLayerSize/10+1), "larger than 1048576 bytes"},
	{"too many words", "drain: {order: [" + strings.Repeat("a,", maxTokens) + "]}", "more than 20000 words"},
	{"lists within lists", strings.Repeat("[", 500_000), "nested more than 32 levels deep"},
	{"mappings within mappings", strings.Repeat("{a: ", 200_000), "nested more than 32 levels deep"},
	{"block lists on one line", strings.Repeat("- ", 500_000) + "a", "nested more than 32 levels deep"},
	{"mappings on one line", strings.Repeat("a: ", 300_000), "nested more than 32 levels deep"},
	{"block mappings", deep(500), "nested more than 32 levels deep"},
	{"keys within keys", strings.Repeat("? ", 500_000), "'? name' is not used"},
	{"tags on tags", strings.Repeat("!a ", 300_000), "tags are not used"},
	{"anchors on anchors", strings.Repeat("&a ", 300_000), "anchors"},
	{"a bomb of aliases", "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\n", "anchors"},
	{"an alias to itself", "a: &a [*a]\n", "anchors"},
	{"a merge key", "a: {<<: {b: c}}\n", "merge keys"},
	{"a tag", "kind: !!binary Tm9kZQ==\n", "tags are not used"},
	{"a directive", "%YAML 1.1\n---\nkind: Node\n", "directives are not used"},
	{"several documents", base + "---\n" + base, "a second document"},
	{"several documents, the first empty", "---\n---\n" + base, "a second document"},
	{"a document after the end", base + "...\n" + base, ""},
	{"an unclosed quote", base + "node: {environment: 'x}\n", "close the quote"},
	{"an unclosed list", "drain: {order: [a\n", ""},
	{"a closing brace too many", base + "node: {}}\n", ""},
	{"a list at the top", "- a\n- b\n", "a list where a mapping belongs"},
	{"text at the top", "hello\n", "text where a mapping belongs"},
	{"a number at the top", "12\n", "a number where a mapping belongs"},
	{"a number as a name", base + "1: 2\n", "a field's name must be text"},
	{"a boolean as a name", base + "true: 2\n", "a field's name must be text"},
	{"nothing as a name", base + "~: 2\n", "a field's name must be text"},
	{"a list as a name", base + "[a]: 2\n", ""},
	{"a mapping as a name", base + "{a: b}: 2\n", ""},
	{"an empty name", base + "'': 2\n", "a field that doesn't exist here"},
	{"a name with a line end", base + "\"a\\nb\": 2\n", "a field that doesn't exist here"},
	{"a very long name", base + strings.Repeat("x", 100_000) + ": 2\n", "a field that doesn't exist here"},
	{"the field that isn't one", base + "secrets: {items: [{name: a, from: {file: {path: /x}}, onChange: {'-': true}}]}\n", "onChange"},
	{"octal", base + "workload: {pull: {parallel: 010}}\n", "already set"},
	{"infinity", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: a, files: [/x], pull: {parallel: .inf}}\n", "plain decimal digits"},
	{"a number beyond every type", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: a, files: [/x], pull: {parallel: 99999999999999999999999}}\n", "a number belongs"},
	{"a float", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: a, files: [/x], pull: {parallel: 4.0}}\n", "plain decimal digits"},
	{"a duration beyond every type", base + "drain: {budget: 9999999999h}\n", "drain.budget"},
	{"a size beyond every type", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: a, files: [/x], cleanUp: {minFree: 1e300TB}}\n", "minFree"},
	{"nothing but punctuation", "@`%&*", ""},
	{"a colon", ":", ""},
	{"a dash", "-", ""},
	{"a question mark", "?", ""},
}

// deep is a block mapping nested n levels.
func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func TestHostileDocumentsAreRefusedWithAReason(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			got := problemsOf(t, layer("/x", c.data)).Error()
			if !strings.Contains(got, c.want) {
				t.Errorf("got %.300s\nwant it to mention %q", got, c.want)
			}
			if len(got) > 2000 {
				t.Errorf("the error is %d bytes long", len(got))
			}
		})
	}
}

func TestHarmlessOdditiesAreAccepted(t *testing.T) {
	for name, data := range map[string]string{
		"a byte order mark":          "\xef\xbb\xbf" + base,
		"line ends of two kinds":     base + "\r\n# x\r\n",
		"line ends of Windows":       strings.ReplaceAll(base, "\n", "\r\n"),
		"a document's start and end": "---\n" + base + "...\n",
		"JSON":                       `{"apiVersion": "flowagent/v1", "kind": "Node", "workload": {"project": "app", "files": ["/c.yaml"]}}`,
		"no line end at the end":     strings.TrimSuffix(base, "\n"),
		"a lot of comments":          strings.Repeat("# x\n", 100_000) + base,
		"text beyond ASCII":          base + "node: {environment: \"Käserei 7 · 東京\"}\n",
	} {
		if _, err := Parse(layer("/x", data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPlacesAreRightBesideTextBeyondASCIIAndLineEndsOfWindows(t *testing.T) {
	data := strings.Join([]string{
		"# é",
		"apiVersion: flowagent/v1",
		"kind: Node # ü",
		"workload:",
		"  project: app",
		"  files: [/c.yaml]",
		"  variables:",
		"    TEXT: |",
		"      one é",
		"      two",
		"    LONG: one",
		"      two",
		"    QUOTED: \"a é",
		"      b\"",
		"node: {environment: \"é\", provider: é}",
		"health: {listen: é}  # é",
		"drain:\t  ",
		"  budget: 1 1  ",
		"  deregisterDelay: \tx\t # é",
		"  order: 1  ",
		"",
	}, "\r\n")
	var got []string
	for _, p := range problemsOf(t, layer("/x", data)) {
		got = append(got, p.Origin.String())
	}
	if diff := cmp.Diff([]string{"/x:15:36", "/x:16:18", "/x:18:11", "/x:19:21", "/x:20:10"}, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, h := range hostile {
		if len(h.data) < 10_000 { // the fuzzer works by small changes; the rest are tests of their own
			f.Add([]byte(h.data))
		}
	}
	f.Add([]byte(base))
	f.Add(Starter())
	for _, data := range examples(f) {
		f.Add(data)
	}
	published := compileSchema(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		IsDocument(data)
		checkPlaces(t, data)
		loaded, err := Parse(layer("/etc/flowagent/config.yaml", string(data)))
		if err != nil {
			checkProblems(t, data, err)
			return
		}
		checkRoundTrip(t, loaded)
		if err := published.Validate(asJSON(t, data)); err != nil {
			t.Errorf("Parse accepts what the schema refuses: %v", err)
		}
	})
}
