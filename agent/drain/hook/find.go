package hook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/cenkalti/backoff/v5"

	"github.com/flowviz/flowagent/agent/awserror"
)

// ErrNoHook says that nothing holds the instance in this transition: it is in no group, or its group has no such hook.
var ErrNoHook = errors.New("no lifecycle hook")

// Find returns the hooks of a transition, each of which has to be completed. With a name it returns that hook alone,
// because the others are somebody else's to complete. It tries for up to 15 seconds.
//
// The error is ErrNoHook where there is none, which is a normal answer. A name that the group doesn't have, while it has
// others, is another error. Where IAM forbids to describe hooks, the name is taken as it is, with AWS's defaults.
func (h *Hooks) Find(ctx context.Context, transition Transition, name string) ([]*Hook, error) {
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	group, err := h.findGroup(ctx)
	if err != nil {
		return nil, err
	}
	var out *sdk.DescribeLifecycleHooksOutput
	err = h.describe(ctx, func(ctx context.Context) (err error) {
		out, err = h.api.DescribeLifecycleHooks(ctx, &sdk.DescribeLifecycleHooksInput{AutoScalingGroupName: &group})
		return err
	})
	var found []*Hook
	switch {
	case awserror.Denied(err) && name != "":
		h.say(ctx, err)
		found = []*Hook{{Name: name, Group: group, Transition: transition, Timeout: defaultTimeout, Default: defaultResult}}
	case err != nil:
		return nil, fmt.Errorf("find the %s hooks of group %s: %w", transition, group, explain(err, "DescribeLifecycleHooks"))
	default:
		if found, err = choose(out.LifecycleHooks, group, transition, name); err != nil {
			return nil, err
		}
	}
	for _, k := range found {
		k.hooks, k.Longest = h, longest(k.Timeout)
		h.log.InfoContext(ctx, "hook found", "hook", k.Name, "group", k.Group, "transition", string(k.Transition),
			"timeout", k.Timeout, "default", string(k.Default), "described", k.Described)
		h.observer.Found(k)
	}
	return found, nil
}

// Underway tells whether the instance is in a transition now or on its way into it. It tries for up to 15 seconds; an instance
// of no group is in none.
func (h *Hooks) Underway(ctx context.Context, transition Transition) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	var found *types.AutoScalingInstanceDetails
	err := h.describe(ctx, func(ctx context.Context) (err error) {
		found, err = h.self(ctx)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("see how far instance %s is: %w", h.instance, explain(err, "DescribeAutoScalingInstances"))
	}
	if found == nil {
		return false, nil
	}
	// The states of a transition begin with its phase, such as Pending and Pending:Wait; in a warm pool after a word.
	phase, _, _ := strings.Cut(strings.TrimPrefix(aws.ToString(found.LifecycleState), "Warmed:"), ":")
	return phase == "Pending" && transition == Launching || phase == "Terminating" && transition == Terminating, nil
}

// choose reads the group's hooks for those that are meant.
func choose(all []types.LifecycleHook, group string, transition Transition, name string) ([]*Hook, error) {
	var found []*Hook
	var others []string
	for _, d := range all {
		if aws.ToString(d.LifecycleTransition) != string(transition) {
			continue
		}
		if name != "" && aws.ToString(d.LifecycleHookName) != name {
			others = append(others, aws.ToString(d.LifecycleHookName))
			continue
		}
		k := &Hook{
			Name: aws.ToString(d.LifecycleHookName), Group: group, Transition: transition,
			Timeout: time.Duration(aws.ToInt32(d.HeartbeatTimeout)) * time.Second,
			Default: Result(aws.ToString(d.DefaultResult)), Described: true,
		}
		if k.Timeout <= 0 {
			k.Timeout = defaultTimeout
		}
		if k.Default == "" {
			k.Default = defaultResult
		}
		found = append(found, k)
	}
	switch {
	case len(found) > 0:
		return found, nil
	case len(others) > 0:
		return nil, fmt.Errorf("group %s has no %s hook %q, but %s: name one of those in the configuration, or none for all of them",
			group, transition, name, strings.Join(others, ", "))
	}
	return nil, fmt.Errorf("%w for %s in group %s", ErrNoHook, transition, group)
}

// findGroup asks for the instance's group once: an instance stays in its group, and leaving should not depend on this call.
func (h *Hooks) findGroup(ctx context.Context) (string, error) {
	h.mu.Lock()
	known := h.group
	h.mu.Unlock()
	if known != "" {
		return known, nil
	}
	var found *types.AutoScalingInstanceDetails
	err := h.describe(ctx, func(ctx context.Context) (err error) {
		found, err = h.self(ctx)
		return err
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("find the group of instance %s: %w", h.instance, explain(err, "DescribeAutoScalingInstances"))
	case found == nil:
		return "", fmt.Errorf("%w: instance %s is in no Auto Scaling group", ErrNoHook, h.instance)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.group = aws.ToString(found.AutoScalingGroupName)
	return h.group, nil
}

// self is this instance as Auto Scaling knows it; nil when it is in no group.
func (h *Hooks) self(ctx context.Context) (*types.AutoScalingInstanceDetails, error) {
	out, err := h.api.DescribeAutoScalingInstances(ctx, &sdk.DescribeAutoScalingInstancesInput{InstanceIds: []string{h.instance}})
	if err != nil || len(out.AutoScalingInstances) == 0 {
		return nil, err
	}
	return &out.AutoScalingInstances[0], nil
}

// describe repeats a call that only reads, until ctx ends or the call is refused for what it is.
func (h *Hooks) describe(ctx context.Context, call func(context.Context) error) error {
	var last error
	p := &pace{random: h.random, longest: lastRetry, ends: func() time.Time { end, _ := ctx.Deadline(); return end }}
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		err := once(ctx, call)
		if err == nil || last == nil || ctx.Err() == nil { // what went wrong before says more than that time is up
			last = err
		}
		if refused(last) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(p), backoff.WithMaxElapsedTime(0)) // the pace knows the end
	return last
}

// say tells once that hooks are taken as configured.
func (h *Hooks) say(ctx context.Context, err error) {
	h.mu.Lock()
	said := h.denied
	h.denied = true
	h.mu.Unlock()
	if !said {
		h.log.WarnContext(ctx, "hooks can't be described: the configured name and AWS's defaults are taken",
			"error", explain(err, "DescribeLifecycleHooks"))
	}
}
