package agent

import (
	"errors"
	"fmt"
	"slices"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/agent/workload"
)

// delivery puts each service's secrets where its containers read them.
type delivery struct {
	uses         []workload.SecretUse
	onChange     map[string]config.OnChange // by item
	values       func(item string) (secret.Value, bool)
	store        *secret.Store
	fingerprints *secret.Fingerprinter
}

func newDelivery(cfg config.Secrets, project *workload.Project, keeper *secret.Keeper, store *secret.Store, fingerprints *secret.Fingerprinter) *delivery {
	d := &delivery{uses: project.Secrets(), values: keeper.Value, store: store, fingerprints: fingerprints, onChange: map[string]config.OnChange{}}
	for _, item := range cfg.Items {
		d.onChange[item.Name] = item.OnChange
	}
	return d
}

// value reads one secret. It is absent when its source withdrew it.
func (d *delivery) value(use workload.SecretUse) (value secret.Value, present bool, err error) {
	if use.Item != "" {
		value, present = d.values(use.Item)
		return value, present, nil
	}
	value, err = use.Value()
	return value, err == nil, err
}

// write brings the store up to date and returns the uses whose file changed. What could not be written is left as it
// was; the error joins every service's.
func (d *delivery) write() ([]workload.SecretUse, error) {
	var changed []workload.SecretUse
	var failed []error
	for _, service := range d.services() {
		var files []secret.File
		var unread error
		for _, use := range d.uses {
			if use.Service != service {
				continue
			}
			value, present, err := d.value(use)
			if err != nil {
				unread = errors.Join(unread, err)
			}
			if present {
				files = append(files, secret.File{Name: use.File, Value: value, UID: use.UID, GID: use.GID, Mode: use.Mode})
			}
		}
		if unread != nil {
			failed = append(failed, fmt.Errorf("secrets of service %s: %w", service, unread))
			continue
		}
		names, err := d.store.Apply(service, files)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		for _, use := range d.uses {
			if use.Service == service && slices.Contains(names, use.File) {
				changed = append(changed, use)
			}
		}
	}
	return changed, errors.Join(failed...)
}

// prune removes the secrets of services that have none any more. Their containers must be gone, or made anew.
func (d *delivery) prune() error {
	stored, err := d.store.Services()
	if err != nil {
		return err
	}
	wanted := d.services()
	var failed []error
	for _, service := range stored {
		if !slices.Contains(wanted, service) {
			failed = append(failed, d.store.Remove(service))
		}
	}
	return errors.Join(failed...)
}

// labels are the content versions of the services that must be recreated when a secret changes. Services whose secrets
// change in place have none, so that a rotation doesn't touch them.
func (d *delivery) labels() map[string]string {
	labels := map[string]string{}
	for _, service := range d.services() {
		values := map[string]secret.Value{}
		for _, use := range d.uses {
			if use.Service == service && d.restarts(use) {
				if value, present, _ := d.value(use); present {
					values[use.File] = value
				}
			}
		}
		if len(values) > 0 {
			labels[service] = d.fingerprints.Sum(values)
		}
	}
	return labels
}

func (d *delivery) restarts(use workload.SecretUse) bool {
	return use.ForcesRestart || d.onChange[use.Item].Restart
}

// recreations are the services that must be recreated because of what changed. A withdrawn secret recreates nobody: a
// service may go on with what it holds in memory, while a new container could not start.
func (d *delivery) recreations(changed []workload.SecretUse) []string {
	var services []string
	for _, use := range changed {
		_, present, _ := d.value(use)
		if present && d.restarts(use) && !slices.Contains(services, use.Service) {
			services = append(services, use.Service)
		}
	}
	return services
}

// call is a signal for a service.
type call struct{ service, signal string }

// versions are the content versions that each call is about. One whose secret was withdrawn is left out, since there is
// nothing new to tell.
func (d *delivery) versions() map[call]string {
	values, gone := map[call]map[string]secret.Value{}, map[call]bool{}
	for _, use := range d.uses {
		c := call{use.Service, d.onChange[use.Item].Signal}
		if c.signal == "" {
			continue
		}
		if values[c] == nil {
			values[c] = map[string]secret.Value{}
		}
		value, present, _ := d.value(use)
		values[c][use.File] = value
		gone[c] = gone[c] || !present
	}
	versions := map[call]string{}
	for c, v := range values {
		if !gone[c] {
			versions[c] = d.fingerprints.Sum(v)
		}
	}
	return versions
}

// services are the services that use secrets, each once, in order.
func (d *delivery) services() []string {
	var names []string
	for _, use := range d.uses {
		names = append(names, use.Service)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
