package image

import (
	"strings"

	"github.com/moby/moby/api/types/jsonstream"
)

// transfer follows the messages of one pull: what each layer is doing, and how far the image is.
type transfer struct {
	layers map[string]*layerState
	digest string // the manifest's digest that the engine reported, "" until then
}

type layerState struct {
	status         string
	current, total int64 // of the present status
	size           int64 // bytes to download, 0 until known
	got            int64 // bytes downloaded
}

func newTransfer() *transfer { return &transfer{layers: map[string]*layerState{}} }

// The statuses that engines send for a layer, from the first to the last.
const (
	statusQueued      = "Pulling fs layer"
	statusWaiting     = "Waiting"
	statusDownloading = "Downloading"
	statusDownloaded  = "Download complete"
	statusExtracting  = "Extracting"
	statusPulled      = "Pull complete"
	statusPresent     = "Already exists"
	// Followed by "N seconds": the engine counts down before it asks for a layer again, at most five times.
	statusRetrying = "Retrying in"
)

// apply takes one message in and tells whether the pull got further: a layer changed its state, more bytes arrived or
// were extracted. The engine's countdown before its own retry is no progress.
func (t *transfer) apply(m jsonstream.Message) (moved bool) {
	if digest, ok := strings.CutPrefix(m.Status, "Digest: "); ok {
		t.digest = digest
		return true
	}
	if m.ID == "" || strings.HasPrefix(m.Status, "Pulling from ") {
		return true
	}
	layer, known := t.layers[m.ID]
	if !known {
		layer = &layerState{}
		t.layers[m.ID] = layer
	}
	if strings.HasPrefix(m.Status, statusRetrying) {
		m.Status = statusRetrying
	}
	moved = !known || (layer.status != m.Status && m.Status != statusRetrying)
	if layer.status != m.Status {
		layer.status, layer.current = m.Status, 0
	}
	if m.Progress != nil {
		moved = moved || m.Progress.Current > layer.current
		layer.current, layer.total = m.Progress.Current, m.Progress.Total
	}
	switch {
	case m.Status == statusDownloading:
		layer.got = layer.current
		layer.size = max(layer.size, layer.total)
	case m.Status == statusDownloaded || m.Status == statusPulled:
		layer.got = max(layer.got, layer.size)
	}
	return moved
}

// queued tells whether the engine has begun with none of the image's unfinished layers: it downloads three layers at a
// time (dockerd's max-concurrent-downloads), of all images together.
func (t *transfer) queued() bool {
	waiting := false
	for _, layer := range t.layers {
		switch layer.status {
		case statusQueued, statusWaiting:
			waiting = true
		case statusPulled, statusPresent, statusDownloaded:
		default:
			return false
		}
	}
	return waiting
}

// state sums the layers up.
func (t *transfer) state() State {
	s := State{Doing: "waiting"}
	var extracting bool
	for _, layer := range t.layers {
		s.Layers++
		s.Current += layer.got
		s.Total += layer.size
		switch layer.status {
		case statusPulled, statusPresent:
			s.Done++
		case statusDownloading:
			s.Doing = "downloading"
		case statusExtracting:
			extracting = true
		}
	}
	if s.Doing == "waiting" && extracting {
		s.Doing = "extracting"
	}
	return s
}
