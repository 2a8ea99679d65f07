package verify

import (
	"errors"
	"fmt"
	"strings"
)

// images looks for the images that the Compose files name, the digest of each included.
func (v *verifier) images() (string, error) {
	if v.node == nil || v.node.Project == nil {
		return "", errors.New("not checked: the configuration doesn't say which")
	}
	find, err := v.Images(v.ctx, v.node.Config.Workload.Engine)
	if err != nil {
		return "", fmt.Errorf("not checked: %w", err)
	}
	var bad, there []string
	for _, ref := range v.node.Project.Images() {
		found, err := find(ref)
		switch {
		case err != nil:
			bad = append(bad, fmt.Sprintf("%s: %v", ref, err))
		case found.Digest == "":
			there = append(there, fmt.Sprintf("%s (loaded, id %s)", ref, found.ID))
		default:
			there = append(there, fmt.Sprintf("%s (%s)", ref, found.Digest))
		}
	}
	if len(bad) > 0 {
		return "", &findings{fmt.Sprintf("%d of %s missing: pull them into the image", len(bad), counted(len(bad)+len(there), "image")), bad}
	}
	return fmt.Sprintf("%s: %s", counted(len(there), "image"), strings.Join(there, ", ")), nil
}
