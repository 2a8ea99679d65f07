package secret

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"golang.org/x/sync/errgroup"
)

const (
	// ssmBatch is the most names one GetParameters takes (API reference, Names).
	ssmBatch = 10

	ssmHint = "allow ssm:GetParameters on it, and kms:Decrypt on its key, for this node's role"
)

// ssmAPI is what is needed of Systems Manager.
type ssmAPI interface {
	GetParameters(ctx context.Context, in *ssm.GetParametersInput, options ...func(*ssm.Options)) (*ssm.GetParametersOutput, error)
}

// ssmLocator is one parameter, perhaps in one version.
type ssmLocator struct {
	region string // "" is the node's own
	name   string // name or ARN, with :version or :label where wanted
}

func (l ssmLocator) String() string { return "ssm:" + l.name }

// parts cuts the selector off. Names have no colon in them, ARNs have five.
func (l ssmLocator) parts() (base, selector string) {
	if !strings.HasPrefix(l.name, "arn:") {
		base, selector, _ = strings.Cut(l.name, ":")
		return base, selector
	}
	fields := strings.SplitN(l.name, ":", 7)
	if len(fields) < 7 {
		return l.name, ""
	}
	return strings.Join(fields[:6], ":"), fields[6]
}

// isFor tells whether a parameter that came back is the one asked for.
func (l ssmLocator) isFor(p types.Parameter) bool {
	base, selector := l.parts()
	if base != aws.ToString(p.Name) && base != aws.ToString(p.ARN) {
		return false
	}
	return selector == strings.TrimPrefix(aws.ToString(p.Selector), ":") || selector == strconv.FormatInt(p.Version, 10)
}

// parameterStore reads AWS Systems Manager Parameter Store, decrypting what is encrypted.
type parameterStore struct {
	clients regional[ssmAPI]
	wanted  []ssmLocator
}

func (s *parameterStore) fetch(ctx context.Context) map[locator]answer {
	sheet := newAnswerSheet()
	var group errgroup.Group
	group.SetLimit(awsParallel)
	for region, wanted := range byRegion(s.wanted, func(l ssmLocator) string { return l.region }) {
		client, err := s.clients.client(ctx, region)
		if err != nil {
			for _, l := range wanted {
				sheet.put(l, answer{err: err})
			}
			continue
		}
		together, alone := apartByName(wanted)
		for part := range slices.Chunk(together, ssmBatch) {
			group.Go(func() error { s.batch(ctx, client, part, sheet); return nil })
		}
		for _, l := range alone {
			group.Go(func() error { s.batch(ctx, client, []ssmLocator{l}, sheet); return nil })
		}
	}
	_ = group.Wait() // every outcome is on the sheet
	return sheet.answers
}

// apartByName keeps two versions of one parameter out of one call: names in a call must be unique, and not every
// service repeats the selector by which the answers could be told apart.
func apartByName(wanted []ssmLocator) (together, alone []ssmLocator) {
	seen := make(map[string]bool)
	for _, l := range wanted {
		if base, _ := l.parts(); !seen[base] {
			seen[base] = true
			together = append(together, l)
		} else {
			alone = append(alone, l)
		}
	}
	return together, alone
}

// batch reads up to ssmBatch parameters in one call. IAM denies the whole call for one parameter, and one malformed name
// makes it invalid; those calls are repeated for each name alone, so that only the culprit fails.
func (s *parameterStore) batch(ctx context.Context, client ssmAPI, wanted []ssmLocator, sheet *answerSheet) {
	out, err := s.get(ctx, client, wanted)
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable), len(wanted) == 1:
		for _, l := range wanted {
			sheet.put(l, answer{err: err})
		}
		return
	default:
		out = &ssm.GetParametersOutput{}
	}
	for _, l := range wanted {
		i := slices.IndexFunc(out.Parameters, l.isFor)
		switch {
		case i >= 0:
			sheet.put(l, ssmAnswer(out.Parameters[i]))
		case slices.Contains(out.InvalidParameters, l.name):
			sheet.put(l, answer{err: ssmMissing()})
		case len(wanted) == 1 && len(out.Parameters) == 1:
			// The one answer to the one question, whatever it calls itself (a label, an alias of a shared parameter).
			sheet.put(l, ssmAnswer(out.Parameters[0]))
		case len(wanted) == 1:
			sheet.put(l, answer{err: ssmMissing()})
		default:
			s.batch(ctx, client, []ssmLocator{l}, sheet)
		}
	}
}

func (s *parameterStore) get(ctx context.Context, client ssmAPI, wanted []ssmLocator) (*ssm.GetParametersOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	names := make([]string, len(wanted))
	for i, l := range wanted {
		names[i] = l.name
	}
	out, err := client.GetParameters(ctx, &ssm.GetParametersInput{Names: names, WithDecryption: aws.Bool(true)})
	if err != nil {
		return nil, awsError(err, ssmHint)
	}
	return out, nil
}

func ssmAnswer(p types.Parameter) answer {
	return answer{document: NewValue([]byte(aws.ToString(p.Value))), version: strconv.FormatInt(p.Version, 10)}
}

func ssmMissing() error {
	return because(ErrNotFound, "there is no such parameter, version or label: create it, or correct its name")
}
