package health

// State is where the node is in its life.
type State int

const (
	Starting State = iota // the zero value: not fit to serve yet
	Ready                 // the only state that answers 200
	Failing               // the boot failed for good, or what gates the node is broken
	Draining              // leaving: no new work, please
)

// States are all of them, in the order of their numbers.
var States = []State{Starting, Ready, Failing, Draining}

func (s State) String() string {
	switch s {
	case Ready:
		return "ready"
	case Failing:
		return "failing"
	case Draining:
		return "draining"
	default:
		return "starting"
	}
}
