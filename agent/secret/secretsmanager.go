package secret

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"golang.org/x/sync/errgroup"
)

const (
	// smBatch is the most ids one BatchGetSecretValue takes (API reference, SecretIdList).
	smBatch = 20
	// smPages bounds how often one batch is continued by NextToken: a page has at least one secret or error in it.
	smPages = smBatch
	// smCurrent is the staging label of the version in use, which a batch returns.
	smCurrent = "AWSCURRENT"

	smSingleHint = "allow secretsmanager:GetSecretValue on it, and kms:Decrypt on its key, for this node's role"
)

// secretsManagerAPI is what is needed of Secrets Manager.
type secretsManagerAPI interface {
	BatchGetSecretValue(ctx context.Context, in *sm.BatchGetSecretValueInput, options ...func(*sm.Options)) (*sm.BatchGetSecretValueOutput, error)
	GetSecretValue(ctx context.Context, in *sm.GetSecretValueInput, options ...func(*sm.Options)) (*sm.GetSecretValueOutput, error)
}

// smLocator is one version of a secret.
type smLocator struct {
	region  string // "" is the node's own
	id      string // name, ARN, or ARN without its random suffix
	stage   string // never empty
	version string // a version's id instead of stage
}

func (l smLocator) String() string {
	s := "secretsManager:" + l.id
	switch {
	case l.version != "":
		s += "@" + l.version
	case l.stage != smCurrent:
		s += "@" + l.stage
	}
	return s
}

// secretsManager reads AWS Secrets Manager, in batches where that is possible.
type secretsManager struct {
	clients regional[secretsManagerAPI]
	wanted  []smLocator
	log     *slog.Logger
	// batchDenied remembers that the role may read secrets but not in batches, so that every refresh doesn't leave
	// a denied call in CloudTrail.
	batchDenied atomic.Bool
}

func (s *secretsManager) fetch(ctx context.Context) map[locator]answer {
	sheet := newAnswerSheet()
	var group errgroup.Group
	group.SetLimit(awsParallel)
	for region, wanted := range byRegion(s.wanted, func(l smLocator) string { return l.region }) {
		client, err := s.clients.client(ctx, region)
		if err != nil {
			for _, l := range wanted {
				sheet.put(l, answer{err: err})
			}
			continue
		}
		var batchable []smLocator
		for _, l := range wanted {
			if l.stage == smCurrent && l.version == "" {
				batchable = append(batchable, l)
				continue
			}
			group.Go(func() error { sheet.put(l, s.single(ctx, client, l)); return nil })
		}
		for part := range slices.Chunk(batchable, smBatch) {
			group.Go(func() error { s.batch(ctx, client, part, sheet); return nil })
		}
	}
	_ = group.Wait() // every outcome is on the sheet
	return sheet.answers
}

// batch reads up to smBatch secrets in one call. What the call does not settle is read one by one: everything when the
// role may not use the batch action or one malformed id spoils the call, single ids when the answer leaves them out.
func (s *secretsManager) batch(ctx context.Context, client secretsManagerAPI, wanted []smLocator, sheet *answerSheet) {
	// One alone needs no batch, nor the permission for it.
	if len(wanted) == 1 || s.batchDenied.Load() {
		s.singles(ctx, client, wanted, sheet)
		return
	}
	open, err := s.pages(ctx, client, wanted, sheet)
	if errors.Is(err, ErrUnavailable) {
		for _, l := range open {
			sheet.put(l, answer{err: err})
		}
		return
	}
	read := s.singles(ctx, client, open, sheet)
	if errors.Is(err, ErrDenied) && read > 0 && s.batchDenied.CompareAndSwap(false, true) {
		s.log.Warn("secrets are read one by one: allow secretsmanager:BatchGetSecretValue for fewer calls", "source", "secretsManager", "error", err.Error())
	}
}

// pages runs one batch to its end and returns what it left open.
func (s *secretsManager) pages(ctx context.Context, client secretsManagerAPI, wanted []smLocator, sheet *answerSheet) ([]smLocator, error) {
	ids := make([]string, len(wanted))
	for i, l := range wanted {
		ids[i] = l.id
	}
	open := slices.Clone(wanted)
	var next *string
	for range smPages {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		out, err := client.BatchGetSecretValue(callCtx, &sm.BatchGetSecretValueInput{SecretIdList: ids, NextToken: next})
		cancel()
		if err != nil {
			return open, awsError(err, "allow secretsmanager:BatchGetSecretValue for this node's role")
		}
		open = slices.DeleteFunc(open, func(l smLocator) bool {
			for _, entry := range out.SecretValues {
				if l.isFor(aws.ToString(entry.ARN), aws.ToString(entry.Name)) {
					sheet.put(l, smAnswer(entry.SecretString, entry.SecretBinary, entry.VersionId))
					return true
				}
			}
			for _, refusal := range out.Errors {
				if aws.ToString(refusal.SecretId) == l.id {
					sheet.put(l, answer{err: awsCode(aws.ToString(refusal.ErrorCode), aws.ToString(refusal.Message), smSingleHint)})
					return true
				}
			}
			return false
		})
		if next = out.NextToken; aws.ToString(next) == "" || len(open) == 0 {
			break
		}
	}
	return open, nil
}

// isFor tells whether a secret that came back is the one asked for: by ARN, by name, or by an ARN without the dash and
// six random characters that Secrets Manager appends.
func (l smLocator) isFor(arn, name string) bool {
	const suffix = len("-AbCdEf")
	return l.id == arn || l.id == name ||
		len(arn) == len(l.id)+suffix && strings.HasPrefix(arn, l.id+"-") && strings.HasPrefix(l.id, "arn:")
}

// singles reads secrets one by one, several at a time, and returns how many it got.
func (s *secretsManager) singles(ctx context.Context, client secretsManagerAPI, wanted []smLocator, sheet *answerSheet) int {
	var (
		group errgroup.Group
		read  atomic.Int64
	)
	group.SetLimit(awsParallel)
	for _, l := range wanted {
		group.Go(func() error {
			a := s.single(ctx, client, l)
			if a.err == nil {
				read.Add(1)
			}
			sheet.put(l, a)
			return nil
		})
	}
	_ = group.Wait() // every outcome is on the sheet
	return int(read.Load())
}

func (s *secretsManager) single(ctx context.Context, client secretsManagerAPI, l smLocator) answer {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	in := &sm.GetSecretValueInput{SecretId: &l.id}
	if l.version != "" {
		in.VersionId = &l.version
	} else {
		in.VersionStage = &l.stage
	}
	out, err := client.GetSecretValue(ctx, in)
	if err != nil {
		return answer{err: awsError(err, smSingleHint)}
	}
	return smAnswer(out.SecretString, out.SecretBinary, out.VersionId)
}

// smAnswer takes a secret's text or its bytes, whichever it has.
func smAnswer(text *string, binary []byte, version *string) answer {
	switch {
	case text != nil:
		return answer{document: NewValue([]byte(*text)), version: aws.ToString(version)}
	case binary != nil:
		return answer{document: NewValue(binary), version: aws.ToString(version)}
	default:
		return answer{err: because(ErrNotFound, "the secret exists but this version has no value: put one")}
	}
}
