// Package iam says which permissions of AWS a node needs, and compares them with what a role grants.
//
// What enters is a validated [config.Config] and where the node runs (account, region, partition, its groups and what else no
// configuration tells); what leaves is an IAM policy document, one statement a purpose, with a reason for each wildcard and
// notes on what was left out. It calls nobody, it never reads a secret, and a node doesn't need it.
//
// Resources and conditions follow the "Service Authorization Reference" of each service.
package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// version is the policy language's own; the older one knows no variables (IAM User Guide, "Version").
const version = "2012-10-17"

// allow is the one effect that a needed policy has.
const allow = "Allow"

// Document is a policy. As JSON it is what IAM takes, with lists where IAM would also take one value.
type Document struct {
	Version   string      `json:"Version"`
	Statement []Statement `json:"Statement"`
}

// Statement allows actions on resources, under every one of its conditions.
type Statement struct {
	Sid       string     `json:"Sid,omitempty"` // the purpose in one word: letters and digits
	Effect    string     `json:"Effect"`
	Action    List       `json:"Action"`
	Resource  List       `json:"Resource"`
	Condition Conditions `json:"Condition,omitempty"`

	// Purpose says what the node does with it, and Wildcard why a resource has * or ? in it. IAM takes no comments, so they
	// are not in the JSON; a document that was read has none.
	Purpose, Wildcard string `json:"-"`
}

// List is one value or several. Both are read; a list is written.
type List []string

// Conditions are values by operator and key, such as StringEquals, cloudwatch:namespace.
type Conditions map[string]map[string]List

// UnmarshalJSON takes a text or a list. Numbers and truth values count as their text, as IAM has it.
func (l *List) UnmarshalJSON(raw []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	values, several := value.([]any)
	if !several {
		values = []any{value}
	}
	*l = List{}
	for _, v := range values {
		switch v.(type) {
		case string, bool, json.Number:
			*l = append(*l, fmt.Sprint(v))
		default:
			return fmt.Errorf("%s is neither a text nor a list of texts", raw)
		}
	}
	return nil
}

// Parse reads a policy document. It refuses what [Compare] can't weigh, such as NotAction and Principal, and says so.
func Parse(text []byte) (Document, error) {
	var outer struct {
		Version   string
		ID        string `json:"Id"`
		Statement json.RawMessage
	}
	if err := strictly(text, &outer); err != nil {
		return Document{}, fmt.Errorf("read a policy: %w", err)
	}
	if outer.Version != version {
		return Document{}, fmt.Errorf("read a policy: its version is %q: write %q", outer.Version, version)
	}
	if outer.Statement == nil {
		return Document{}, errors.New("read a policy: it has no Statement")
	}
	statements := []Statement{{}}
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(outer.Statement), []byte("{")) { // one alone needs no list
		err = strictly(outer.Statement, &statements[0])
	} else {
		err = strictly(outer.Statement, &statements)
	}
	if err != nil {
		return Document{}, fmt.Errorf("read a policy: Statement: %w: of a statement, Sid, Effect, Action, Resource and Condition are understood", err)
	}
	for i, s := range statements {
		if s.Effect == "" || len(s.Action) == 0 || len(s.Resource) == 0 {
			return Document{}, fmt.Errorf("read a policy: statement %d (%s) needs Effect, Action and Resource", i+1, s.Sid)
		}
	}
	return Document{Version: outer.Version, Statement: statements}, nil
}

// strictly decodes one JSON value and refuses fields that into doesn't have.
func strictly(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows after its end")
	}
	return nil
}

// Size is the number of characters that IAM's limits count: white space is none of them.
func (d Document) Size() int {
	text, err := json.Marshal(d)
	if err != nil {
		panic("iam: a document is texts alone: " + err.Error())
	}
	return len([]rune(string(text)))
}

// Clauses are for people: operator, key and values of each condition, in a fixed order.
func (c Conditions) Clauses() []string {
	var all []string
	for _, operator := range slices.Sorted(maps.Keys(c)) {
		for _, key := range slices.Sorted(maps.Keys(c[operator])) {
			all = append(all, operator+" "+key+" "+strings.Join(c[operator][key], " | "))
		}
	}
	return all
}

// String is all clauses in one line; empty where there are none.
func (c Conditions) String() string { return strings.Join(c.Clauses(), ", ") }
