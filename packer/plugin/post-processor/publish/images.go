package publish

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/packer/plugin/internal/ami"
)

// image is one AMI in its region.
type image struct{ region, id string }

// parseImages reads what the amazon builders call the id of their artifact: region:ami,region:ami. The result is sorted
// by region.
func parseImages(id string) ([]image, error) {
	var images []image
	for part := range strings.SplitSeq(id, ",") {
		region, name, found := strings.Cut(strings.TrimSpace(part), ":")
		if !found || !ami.IsRegion(region) || !ami.IsID(name) {
			return nil, fmt.Errorf("the artifact %q is no list of AMIs by region: use this post-processor after an amazon builder (or its import)", id)
		}
		if slices.ContainsFunc(images, func(i image) bool { return i.region == region }) {
			return nil, fmt.Errorf("the artifact %q has two images in %s: build one at a time", id, region)
		}
		images = append(images, image{region, name})
	}
	slices.SortFunc(images, func(a, b image) int { return strings.Compare(a.region, b.region) })
	return images, nil
}
