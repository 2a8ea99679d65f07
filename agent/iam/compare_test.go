package iam

import (
	"slices"
	"strings"
	"testing"
)

// parse reads statements, one JSON object each.
func parse(t *testing.T, statements ...string) Document {
	t.Helper()
	d, err := Parse([]byte(`{"Version": "2012-10-17", "Statement": [` + strings.Join(statements, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	readOne  = `{"Sid": "Read", "Effect": "Allow", "Action": ["ssm:GetParameters"], "Resource": ["arn:aws:ssm:r:1:parameter/a"]}`
	readAny  = `{"Sid": "Read", "Effect": "Allow", "Action": "ssm:Get*", "Resource": "arn:aws:ssm:r:1:parameter/*"}`
	readBoth = `{"Effect": "Allow", "Action": ["ssm:GetParameters"], "Resource": ["arn:aws:ssm:r:1:parameter/b", "arn:aws:ssm:r:1:parameter/a"]}`
	readB    = `{"Effect": "Allow", "Action": "SSM:getparameters", "Resource": "arn:aws:ssm:r:1:parameter/b"}`
	metrics  = `{"Sid": "Metrics", "Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*", "Condition": {"StringEquals": {"cloudwatch:namespace": "shop"}}}`
)

func TestCompareSaysNothingOfTheSamePermissions(t *testing.T) {
	for name, pair := range map[string][2]Document{
		"the same document":            {parse(t, readOne, metrics), parse(t, readOne, metrics)},
		"in another order":             {parse(t, readOne, metrics), parse(t, metrics, readOne)},
		"cut into statements, in case": {parse(t, readBoth), parse(t, readOne, readB)},
		"nothing at all":               {parse(t), parse(t)},
		"a key in another case":        {parse(t, metrics), parse(t, strings.ReplaceAll(metrics, "cloudwatch:namespace", "CloudWatch:Namespace"))},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Compare(pair[0], pair[1]); len(got) > 0 {
				t.Errorf("got differences: %q", got)
			}
		})
	}
}

func TestCompareSaysWhatIsMissingAndWhatIsTooMuch(t *testing.T) {
	for name, tt := range map[string]struct {
		needed, granted Document
		want            []string
	}{
		"nothing granted": {parse(t, readOne), parse(t), []string{
			"not granted (Read): ssm:GetParameters on arn:aws:ssm:r:1:parameter/a",
		}},
		"nothing needed": {parse(t), parse(t, readOne), []string{
			"not needed (Read): ssm:GetParameters on arn:aws:ssm:r:1:parameter/a",
		}},
		"another resource": {parse(t, readOne), parse(t, readB), []string{
			"not granted (Read): ssm:GetParameters on arn:aws:ssm:r:1:parameter/a",
			"not needed (no Sid): SSM:getparameters on arn:aws:ssm:r:1:parameter/b",
		}},
		"wider than needed": {parse(t, readOne), parse(t, readAny), []string{
			"not needed (Read): ssm:Get* on arn:aws:ssm:r:1:parameter/*",
		}},
		"narrower than needed": {parse(t, readAny), parse(t, readOne), []string{
			"not granted (Read): ssm:Get* on arn:aws:ssm:r:1:parameter/*",
		}},
		"without the condition": {parse(t, metrics), parse(t, strings.Replace(metrics, `, "Condition": {"StringEquals": {"cloudwatch:namespace": "shop"}}`, "", 1)), []string{
			"not needed (Metrics): cloudwatch:PutMetricData on *; the other policy's Metrics has it if StringEquals cloudwatch:namespace shop",
		}},
		"under another condition": {parse(t, metrics), parse(t, strings.Replace(metrics, `"shop"`, `"other"`, 1)), []string{
			"not granted (Metrics): cloudwatch:PutMetricData on * if StringEquals cloudwatch:namespace shop; the other policy's Metrics has it if StringEquals cloudwatch:namespace other",
			"not needed (Metrics): cloudwatch:PutMetricData on * if StringEquals cloudwatch:namespace other; the other policy's Metrics has it if StringEquals cloudwatch:namespace shop",
		}},
		"a denial": {parse(t, readOne), parse(t, readOne, strings.Replace(readB, "Allow", "Deny", 1)), []string{
			"not compared (no Sid): Deny SSM:getparameters in the granted policy",
		}},
		"a denial in place of it": {parse(t, readOne), parse(t, strings.Replace(readOne, "Allow", "Deny", 1)), []string{
			"not compared (Read): Deny ssm:GetParameters in the granted policy",
			"not granted (Read): ssm:GetParameters on arn:aws:ssm:r:1:parameter/a",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Compare(tt.needed, tt.granted); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestConditionsImply(t *testing.T) {
	one := func(operator, key string, values ...string) Conditions {
		return Conditions{operator: {key: List(values)}}
	}
	both := Conditions{"StringEquals": {"a": {"x"}, "b": {"y"}}}
	for _, tt := range []struct {
		given, asked Conditions
		want         bool
	}{
		{nil, nil, true},
		{one("StringEquals", "a", "x"), nil, true},
		{nil, one("StringEquals", "a", "x"), false},
		{one("StringEquals", "a", "x"), one("StringEquals", "a", "y", "x"), true},
		{one("StringEquals", "a", "x", "y"), one("StringEquals", "a", "x"), false},
		{one("StringEquals", "a", "x"), one("StringEquals", "b", "x"), false},
		{one("StringEquals", "a", "x1"), one("StringLike", "a", "x?"), true},
		{one("StringLike", "a", "x?"), one("StringLike", "a", "x*"), true},
		{one("StringLike", "a", "x*"), one("StringLike", "a", "x?"), false},
		{one("StringLike", "a", "x"), one("StringEquals", "a", "x"), false},     // says too much, which is allowed
		{one("StringEquals", "a", "x1"), one("StringEquals", "a", "x?"), false}, // no wildcard there
		{one("ArnLike", "a", "arn:x"), one("ArnEquals", "a", "arn:*"), true},
		{one("StringNotEquals", "a", "x"), one("StringNotEquals", "a", "x"), true},
		{one("StringNotEquals", "a", "x"), one("StringNotEquals", "a", "x", "y"), false},
		{one("ForAllValues:StringEquals", "a", "x"), one("StringEquals", "a", "x"), false},
		{both, one("StringEquals", "A", "x"), true},
		{one("StringEquals", "a", "x"), both, false},
	} {
		if got := implies(tt.given, tt.asked); got != tt.want {
			t.Errorf("that %q implies %q is %v, want %v", tt.given, tt.asked, got, tt.want)
		}
	}
}

func TestParseReadsWhatIAMWrites(t *testing.T) {
	d, err := Parse([]byte(`{"Version": "2012-10-17", "Id": "node", "Statement": {"Sid": "A", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*",
		"Condition": {"Bool": {"aws:SecureTransport": true}, "NumericEquals": {"s3:max-keys": [10, "20"]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := "Bool aws:SecureTransport true, NumericEquals s3:max-keys 10 | 20"
	if got := d.Statement[0].Condition.String(); got != want {
		t.Errorf("got conditions %q, want %q", got, want)
	}
}

func TestParseRefusesWhatCannotBeCompared(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"no JSON":                 {`{`, "read a policy: unexpected EOF"},
		"another version":         {`{"Version": "2008-10-17", "Statement": []}`, `its version is "2008-10-17": write "2012-10-17"`},
		"more than one":           {`{"Version": "2012-10-17", "Statement": []} {}`, "more follows"},
		"no statement":            {`{"Version": "2012-10-17"}`, "it has no Statement"},
		"NotAction":               {`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}]}`, `unknown field "NotAction"`},
		"a Principal":             {`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": "*", "Action": "a:b", "Resource": "*"}}`, `unknown field "Principal"`},
		"no resource":             {`{"Version": "2012-10-17", "Statement": [{"Sid": "X", "Effect": "Allow", "Action": "a:b"}]}`, "statement 1 (X) needs Effect, Action and Resource"},
		"a mapping for an action": {`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": {"a": 1}, "Resource": "*"}]}`, "neither a text nor a list"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
