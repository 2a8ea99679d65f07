package infra

import "encoding/json"

// document is an IAM policy.
type document struct {
	Statement []statement
}

type statement struct {
	Sid       string
	Effect    string
	Action    words
	Resource  words
	Condition map[string]map[string]words
}

// words is a list, or a single word in its place.
type words []string

func (w *words) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(w))
}
