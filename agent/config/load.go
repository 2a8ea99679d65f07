package config

import (
	"cmp"
	"reflect"
	"regexp"
	"slices"
)

// Loaded is a configuration that passed every check, with the place each value came from.
type Loaded struct {
	Config Config
	// Origins has the place of every value by its field's path, such as workload.pull.parallel,
	// workload.variables.IMAGE_TAG or secrets.items[db_password].from.age.file.
	Origins map[string]Origin
	// Layers are the names of the layers, the earliest first.
	Layers []string
}

// Load reads the main file at path with its drop-ins and parses them. Errors in what they say are [Problems].
func Load(path string) (*Loaded, error) {
	layers, err := ReadLayers(path)
	if err != nil {
		return nil, err
	}
	return Parse(layers...)
}

// Parse merges the layers over the defaults, the first being the main file, and checks the result. The error, if any,
// is a [Problems] with everything that is wrong, in the order of layers, lines and columns.
func Parse(layers ...Layer) (*Loaded, error) {
	cfg, defaults := Default(), Default()
	d := &decoder{
		origins:  map[string]Origin{},
		places:   map[string]Origin{},
		refused:  map[string]bool{},
		patterns: map[string]*regexp.Regexp{},
	}
	if len(layers) == 0 {
		return nil, Problems{{Origin: Origin{File: originDefault}, Message: "no configuration", Hint: "write one with 'flowagent config init'"}}
	}
	readable := true
	root := Origin{File: layers[0].Name, Line: 1, Column: 1}
	for i, layer := range layers {
		d.layer, d.index = layer, i
		body, problems := document(layer)
		for _, p := range problems {
			d.problems = append(d.problems, placed{i, p})
		}
		switch {
		case len(problems) > 0:
			readable = false
		case body == nil || body.kind == kindNull:
			if i == 0 {
				d.problem(root, spot{}, "write one with 'flowagent config init'", "the configuration is empty")
			}
		default:
			d.decode(body, reflect.ValueOf(&cfg).Elem(), reflect.ValueOf(defaults), spot{})
			if i == 0 {
				d.header(body, root)
			}
		}
	}
	d.places[""] = root
	if readable { // else whatever seems to be missing may well be in the layer that can't be read
		(&checker{d, layers}).check(&cfg)
	}
	if len(d.problems) > 0 {
		return nil, d.sorted()
	}
	d.fill(reflect.ValueOf(&cfg).Elem(), spot{})
	loaded := &Loaded{Config: cfg, Origins: map[string]Origin{}}
	for _, layer := range layers {
		loaded.Layers = append(loaded.Layers, layer.Name)
	}
	document := view{d.origins, loaded.Origins}
	document.node(reflect.ValueOf(cfg), spot{})
	return loaded, nil
}

// header demands of the main file that it says what it is, so that another program's file isn't half understood.
func (d *decoder) header(body *node, at Origin) {
	if body.kind != kindMapping {
		return
	}
	for _, h := range []struct{ name, value string }{{"apiVersion", APIVersion}, {"kind", Kind}} {
		if n := body.get(h.name); n == nil || n.kind == kindNull {
			d.problem(at, spot{h.name, h.name}, "begin with "+h.name+": "+h.value, "missing")
		}
	}
}

// sorted returns the problems in the order in which a person meets them.
func (d *decoder) sorted() Problems {
	slices.SortStableFunc(d.problems, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.layer, b.layer), cmp.Compare(a.Origin.Line, b.Origin.Line), cmp.Compare(a.Origin.Column, b.Origin.Column))
	})
	problems := make(Problems, len(d.problems))
	for i, p := range d.problems {
		problems[i] = p.Problem
	}
	return problems
}
