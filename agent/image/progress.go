package image

import "time"

// Progress is told how images come along. Its methods are called by several goroutines at once and must not block.
type Progress interface {
	// Started comes once for each image or archive that has to be fetched.
	Started(name string)
	// Moved comes for each message of the engine, often many times a second.
	Moved(name string, s State)
	// Waiting comes before another try: why the last one failed, and how long until the next.
	Waiting(name, why string, wait time.Duration)
	// Finished comes once for each that Started. err is nil when the image is there.
	Finished(name string, result Image, err error)
}

// State is how far one image is. Totals grow while the engine learns the sizes of the layers.
type State struct {
	Doing          string // waiting, downloading, extracting or loading
	Current, Total int64  // bytes; Total 0: not known yet
	Done, Layers   int    // Layers 0: not known, as for an archive
}

// silent is the Progress of a caller that wants none.
type silent struct{}

func (silent) Started(string)                        {}
func (silent) Moved(string, State)                   {}
func (silent) Waiting(string, string, time.Duration) {}
func (silent) Finished(string, Image, error)         {}
