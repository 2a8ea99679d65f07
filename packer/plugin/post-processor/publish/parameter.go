package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/flowviz/flowagent/packer/plugin/internal/ami"
)

const (
	// validationLimit is how long AWS may take to look at an image before the parameter has the new value: it answers
	// PutParameter at once and validates afterwards, in seconds.
	// https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html
	validationLimit = 2 * time.Minute
	validationPause = time.Second
	// restoreLimit bounds putting things back, which happens whether or not the build was cancelled.
	restoreLimit = time.Minute
)

// parameter is one region's, with what it held before.
type parameter struct {
	*region
	name   string
	before string // "" where there was none
}

type parameters []*parameter

// readParameters finds out what each region's parameter holds, and thereby that it may be read, before anything is written.
func (p *PostProcessor) readParameters(ctx context.Context, regions []*region) (parameters, error) {
	if p.config.Parameter == "" {
		return nil, nil
	}
	var all parameters
	for _, r := range regions {
		one := &parameter{region: r, name: p.config.Parameter}
		var err error
		if one.before, err = one.read(ctx); err != nil {
			return nil, fmt.Errorf("read the parameter %s in %s: %w", one.name, r.region, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// read returns the value, "" for no parameter.
func (p *parameter) read(ctx context.Context) (string, error) {
	got, err := p.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: &p.name})
	var none *types.ParameterNotFound
	switch {
	case errors.As(err, &none):
		return "", nil
	case err != nil:
		return "", err
	case aws.ToString(got.Parameter.DataType) != ami.DataType:
		return "", fmt.Errorf("it has the data type %s and not %s: delete it, or choose another name", aws.ToString(got.Parameter.DataType), ami.DataType)
	}
	return aws.ToString(got.Parameter.Value), nil
}

// write puts every region's image into its parameter. When one fails, those that were written get back what they held.
func (all parameters) write(ctx context.Context, ui packersdk.Ui) error {
	for i, p := range all {
		err := p.put(ctx, p.id)
		if err == nil {
			err = p.await(ctx)
		}
		if err != nil {
			err = fmt.Errorf("write the parameter %s in %s: %w", p.name, p.region.region, err)
			return errors.Join(err, all[:i+1].restore(context.WithoutCancel(ctx)))
		}
		ui.Say(fmt.Sprintf("%s in %s is %s (before: %s)", p.name, p.region.region, p.id, orNone(p.before)))
	}
	return nil
}

func orNone(value string) string {
	if value == "" {
		return "none"
	}
	return value
}

func (p *parameter) put(ctx context.Context, value string) error {
	_, err := p.ssm.PutParameter(ctx, &ssm.PutParameterInput{
		Name: &p.name, Value: &value, Type: types.ParameterTypeString, DataType: aws.String(ami.DataType), Overwrite: aws.Bool(true),
	})
	return err
}

// await returns when AWS has found the image to be one that the account can use, which is when the value is there.
func (p *parameter) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, validationLimit,
		fmt.Errorf("AWS has not taken %s within %s: it refuses an image that the account can't use in this region", p.id, validationLimit))
	defer cancel()
	pause := time.NewTicker(validationPause)
	defer pause.Stop()
	for {
		value, err := p.read(ctx)
		switch {
		case err == nil && value == p.id:
			return nil
		case err != nil && ctx.Err() == nil:
			return err
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// restore gives each parameter back what it held, unless somebody else wrote it meanwhile.
func (all parameters) restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	var errs []error
	for _, p := range all {
		value, err := p.read(ctx)
		if err == nil && value == p.id && value != p.before {
			if p.before == "" {
				_, err = p.ssm.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: &p.name})
			} else {
				err = p.put(ctx, p.before)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the parameter %s in %s may name %s, which is not published, and can't be put back: %w: set it to %s yourself",
				p.name, p.region.region, p.id, err, orNone(p.before)))
		}
	}
	return errors.Join(errs...)
}
