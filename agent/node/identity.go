// Package node says what the machine is: an EC2 instance, or a machine of one's own.
//
// What enters are the firmware's tables, a few files of the system and, on EC2 only, the instance metadata service in
// its version 2; what leaves is an [Identity] and, on EC2, the [Metadata] client for whoever asks further. It never
// touches the network on a machine whose firmware doesn't say EC2, never uses version 1 of the metadata service, and
// never changes anything.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/flowviz/flowagent/agent/config"
)

// DefaultWait is how long the metadata service may take to come within reach: cloud-init's max_wait for the same
// service, and more than a slow DHCP server needs.
const DefaultWait = 2 * time.Minute

// Identity is what is known of the machine. An empty field is unknown, and none of them is a secret.
type Identity struct {
	// Provider tells where the rest comes from: ec2 or local, never auto.
	Provider config.Provider `json:"provider"`
	// InstanceID is EC2's, such as i-0123456789abcdef0.
	InstanceID string `json:"instanceId,omitempty"`
	// Hostname is the kernel's; on EC2, when that says nothing, the private DNS name.
	Hostname string `json:"hostname,omitempty"`
	// Region and AvailabilityZone are AWS's, such as eu-central-1 and eu-central-1a.
	Region           string `json:"region,omitempty"`
	AvailabilityZone string `json:"availabilityZone,omitempty"`
	// AccountID is the AWS account that owns the instance: digits, leading zeros included.
	AccountID string `json:"accountId,omitempty"`
	// InstanceType is EC2's, such as m7g.large.
	InstanceType string `json:"instanceType,omitempty"`
	// ImageID is the AMI the instance was launched from.
	ImageID string `json:"imageId,omitempty"`
	// MachineID is the system's own, 32 hexadecimal digits: machine-id(5).
	MachineID string `json:"machineId,omitempty"`
	// Vendor and Product are what the firmware (DMI) calls the machine.
	Vendor  string `json:"vendor,omitempty"`
	Product string `json:"product,omitempty"`
}

// Options says where to look. The zero value looks at this machine.
type Options struct {
	// SysRoot is the directory that holds sys, proc and etc. Empty for /.
	SysRoot string
	// MetadataEndpoint is the base URL of the metadata service. Empty for what the AWS SDKs use: the variables
	// AWS_EC2_METADATA_SERVICE_ENDPOINT and AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE, then http://169.254.169.254.
	MetadataEndpoint string
	// Wait is how long a metadata service that can't be reached, or answers 5xx, is tried again. 0 means DefaultWait.
	Wait time.Duration
	// Log gets one event for the decision and one for each failed try. Nil for none.
	Log *slog.Logger

	dial   func(ctx context.Context, network, address string) (net.Conn, error) // tests reach a server in memory with it
	random func() float64                                                       // in [0,1)
}

func (o Options) withDefaults() Options {
	if o.SysRoot == "" {
		o.SysRoot = "/"
	}
	if o.Wait <= 0 {
		o.Wait = DefaultWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.dial == nil {
		o.dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	if o.random == nil {
		o.random = rand.Float64
	}
	return o
}

// Discover finds out what the machine is. With the provider auto, or none, the firmware decides, and only when it says
// EC2, or the provider is ec2, is the network touched. The client is nil unless the identity's provider is ec2.
//
// What the metadata service answers with 404 stays unknown. Errors wrap ErrUnavailable when it didn't answer in time,
// ErrNoIMDSv2 when it doesn't speak version 2 or is turned off, and the context's own error.
func Discover(ctx context.Context, cfg config.Node, o Options) (Identity, *Metadata, error) {
	o = o.withDefaults()
	firmware := readFirmware(o.SysRoot)
	provider := cfg.Provider
	switch provider {
	case config.ProviderEC2, config.ProviderLocal:
	case config.ProviderAuto, "":
		var because string
		provider, because = firmware.provider()
		o.Log.Info("provider decided by firmware", "phase", "node", "provider", provider, "because", because)
	default:
		return Identity{}, nil, fmt.Errorf("node.provider %q is unknown: use auto, ec2 or local", provider)
	}
	id := Identity{
		Provider:  provider,
		Hostname:  hostname(o.SysRoot),
		MachineID: machineID(o.SysRoot),
		Vendor:    firmware.vendor,
		Product:   firmware.product,
	}
	if provider == config.ProviderLocal {
		return id, nil, nil
	}
	m, err := newMetadata(o)
	if err == nil {
		err = m.describe(ctx, &id)
	}
	if err != nil {
		return Identity{}, nil, fmt.Errorf("identify EC2 instance: %w", err)
	}
	if id.InstanceID == "" {
		id.InstanceID = firmware.instanceID()
	}
	return id, m, nil
}

// describe fills in what the metadata service knows. One document holds nearly all of it; single paths serve where
// that document is missing, as on services that imitate EC2's.
func (m *Metadata) describe(ctx context.Context, id *Identity) error {
	ctx, cancel := m.patience(ctx)
	defer cancel()
	var doc imds.InstanceIdentityDocument
	err := m.patiently(ctx, func(ctx context.Context) error {
		out, err := m.client.GetInstanceIdentityDocument(ctx, nil)
		if err == nil {
			doc = out.InstanceIdentityDocument
		}
		return err
	})
	if err != nil && !errors.Is(err, errNotFound) {
		return fmt.Errorf("instance identity document: %w", err)
	}
	id.InstanceID, id.Region, id.AvailabilityZone = doc.InstanceID, doc.Region, doc.AvailabilityZone
	id.AccountID, id.InstanceType, id.ImageID = doc.AccountID, doc.InstanceType, doc.ImageID
	for _, field := range []struct {
		value *string
		path  string
	}{
		{&id.InstanceID, "instance-id"},
		{&id.Region, "placement/region"},
		{&id.AvailabilityZone, "placement/availability-zone"},
		{&id.InstanceType, "instance-type"},
		{&id.ImageID, "ami-id"},
		{&id.Hostname, "local-hostname"},
	} {
		if *field.value != "" {
			continue
		}
		err := m.patiently(ctx, func(ctx context.Context) (err error) {
			*field.value, err = m.read(ctx, field.path)
			return err
		})
		if err != nil && !errors.Is(err, errNotFound) {
			return fmt.Errorf("%s: %w", field.path, err)
		}
		*field.value = strings.TrimSpace(*field.value)
	}
	return nil
}
