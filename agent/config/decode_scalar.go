package config

import (
	"encoding"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/flowviz/flowagent/agent/config/internal/rule"
)

// text decodes a typed scalar: a duration, a size, an address.
func (d *decoder) text(n *node, v encoding.TextUnmarshaler, s spot) {
	if n.kind != kindString && n.kind != kindNumber {
		d.wrongType(n, s, kindString)
		return
	}
	if !d.printable(n, s) {
		return
	}
	if err := v.UnmarshalText([]byte(n.text)); err != nil {
		message := err.Error()
		if _, isURL := v.(*URL); s.secretive() && !isURL { // an URL's own errors never repeat it
			message = "not " + describe(v)
		}
		d.problem(n.origin, s, "", "%s", message)
		return
	}
	d.origins[s.path] = n.origin
}

func describe(v encoding.TextUnmarshaler) string {
	switch v.(type) {
	case *Duration:
		return "a duration: write it like 30s, 5m or 1h30m"
	case *ByteSize:
		return "a size: write it like 500MB or 10GiB"
	case *Percent:
		return "a share: write it like 5% or 2.5%"
	case *Room:
		return "a size above 0 or a share: write it like 10GiB or 10%"
	}
	return "of the form this field needs"
}

func (d *decoder) string(n *node, v reflect.Value, s spot) {
	if n.kind != kindString {
		d.wrongType(n, s, kindString)
		return
	}
	text := n.text
	if !d.printable(n, s) {
		return
	}
	if e, ok := v.Interface().(enum); ok && !slices.Contains(e.Values(), text) {
		d.oneOf(n, s, e.Values())
		return
	}
	switch s.rule {
	case "apiVersion":
		if text != APIVersion {
			d.problem(n.origin, s, "this flowagent reads "+APIVersion, "not a version this flowagent reads")
			return
		}
	case "kind":
		if text != Kind {
			d.oneOf(n, s, []string{Kind})
			return
		}
	}
	r := rule.Fields[s.rule]
	empty := text == "" && !r.Required && !strings.HasSuffix(s.rule, "[]") // as good as left out
	if !empty && (text == "" || r.Pattern != "" && !d.matches(r.Pattern, text)) {
		says := r.Says
		if says == "" {
			says = "text that is not empty"
		}
		d.problem(n.origin, s, "", "must be %s", says)
		return
	}
	if r.File && text != "" {
		if !filepath.IsAbs(text) {
			if d.layer.dir() == "" {
				d.problem(n.origin, s, "", "must be an absolute path, since %s is in no directory", d.layer.Name)
				return
			}
			text = filepath.Join(d.layer.dir(), text)
		}
		text = filepath.Clean(text)
	}
	v.SetString(text)
	d.origins[s.path] = n.origin
}

// printable refuses what only an escape sequence can put into a document. A variable may have several lines.
func (d *decoder) printable(n *node, s spot) bool {
	for _, c := range n.text {
		if c < ' ' && (c == 0 || !rule.Fields[s.rule].Lines) || c == 0x7f {
			d.problem(n.origin, s, "", "control character %U", c)
			return false
		}
	}
	return true
}

// longestEchoed bounds the words that a message repeats, in bytes: names are shorter, and what is longer was pasted.
const longestEchoed = 40

// oneOf refuses a word that is not among the allowed ones. It is not repeated where it may be a secret.
func (d *decoder) oneOf(n *node, s spot, allowed []string) {
	if s.secretive() || len(n.text) > longestEchoed {
		d.problem(n.origin, s, didYouMean(n.text, allowed), "must be %s", alternatives(allowed))
		return
	}
	d.problem(n.origin, s, didYouMean(n.text, allowed), "%q is unknown", n.text)
}

// decimal is how numbers are written here: 010 and 1_000 mean different things to different readers of YAML.
var decimal = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,17})$`)

func (d *decoder) int(n *node, v reflect.Value, s spot) {
	if n.kind != kindNumber {
		d.wrongType(n, s, kindNumber)
		return
	}
	if !decimal.MatchString(n.text) {
		d.problem(n.origin, s, "", "must be a whole number in plain decimal digits")
		return
	}
	number, err := strconv.Atoi(n.text)
	r := rule.Fields[s.rule]
	if err != nil || (r.Minimum != 0 || r.Maximum != 0) && (number < r.Minimum || number > r.Maximum) {
		d.problem(n.origin, s, "", "must be %s", r.Says)
		return
	}
	v.SetInt(int64(number))
	d.origins[s.path] = n.origin
}

func (d *decoder) bool(n *node, v reflect.Value, s spot) {
	if n.kind != kindBool {
		d.wrongType(n, s, kindBool)
		return
	}
	v.SetBool(strings.EqualFold(n.text, "true")) // YAML 1.2 knows true, True and TRUE
	d.origins[s.path] = n.origin
}

// onChange decodes the only field that is either a word or a mapping. A later layer's replaces the whole.
func (d *decoder) onChange(n *node, v reflect.Value, s spot) {
	d.reset(v, reflect.Zero(v.Type()), s)
	var c OnChange
	switch n.kind {
	case kindString:
		switch n.text {
		case "none":
		case "restart":
			c.Restart = true
		default:
			hint := didYouMean(n.text, []string{"none", "restart"})
			if d.matches(rule.Fields[s.field("signal").rule].Pattern, n.text) {
				hint = "write it as {signal: " + n.text + "}"
			}
			d.problem(n.origin, s, hint, "must be none, restart or {signal: SIGHUP}")
			return
		}
	case kindMapping:
		d.fields(n, reflect.ValueOf(&c).Elem(), reflect.ValueOf(OnChange{}), s)
		delete(d.origins, s.field("signal").path)
		if c.Signal == "" {
			if !d.refused[s.field("signal").path] {
				d.problem(n.origin, s, "", "must be none, restart or {signal: SIGHUP}")
			}
			return
		}
	default:
		d.problem(n.origin, s, "", "must be none, restart or {signal: SIGHUP}")
		return
	}
	v.Set(reflect.ValueOf(c))
	d.origins[s.path] = n.origin
}

func (d *decoder) matches(pattern, text string) bool {
	p := d.patterns[pattern]
	if p == nil {
		p = regexp.MustCompile(pattern)
		d.patterns[pattern] = p
	}
	return p.MatchString(text)
}
