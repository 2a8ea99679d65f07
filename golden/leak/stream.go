package leak

import (
	"bytes"
	"io"
	"slices"
)

// Sizes in bytes of what is in memory of a file. A rule decides with up to behind bytes before its anchor and ahead bytes
// after it, which is more than the first line of any key. The rest is read at once for the sake of speed.
const (
	window = 512 << 10
	ahead  = 4 << 10
	behind = 64
)

// longestAnchor is where the next constant begins at the latest, when a rule takes it for the credential.
const longestAnchor = 40

// stream is a search through bytes in windows that overlap, so that what lies across two of them is found, once.
type stream struct {
	*Scanner
	buffer    []byte
	length    int     // of what is in it
	base      int64   // offset of the buffer
	undecided int     // where anchors begin that no window has decided on
	done      ruleSet // those that have found something, and those that don't hold here
	found     func(r *rule, offset int64)
}

func (s *Scanner) newStream(size int) *stream { return &stream{Scanner: s, buffer: make([]byte, size)} }

// start begins a search for the rules that hold in a place.
func (s *stream) start(p place, found func(*rule, int64)) {
	s.done, s.found = 0, found
	var judged *rule
	for _, a := range s.anchors { // those of a rule follow each other
		if a.rule != judged && !a.rule.holdsIn(p) {
			s.done |= a.set
		}
		judged = a.rule
	}
	s.jump(0)
}

// jump goes on elsewhere, with what doesn't follow what was before.
func (s *stream) jump(offset int64) { s.length, s.base, s.undecided = 0, offset, 0 }

// readFrom searches all that r still has. Its error ends the search as the end does: whoever made r remembers it.
func (s *stream) readFrom(r io.Reader) {
	for {
		n, err := io.ReadFull(r, s.buffer[s.length:])
		s.length += n
		if err != nil {
			s.end()
			return
		}
		s.shift()
	}
}

// Write searches a piece that follows what was before.
func (s *stream) Write(piece []byte) (int, error) {
	for rest := piece; len(rest) > 0; {
		n := copy(s.buffer[s.length:], rest)
		s.length, rest = s.length+n, rest[n:]
		if s.length == len(s.buffer) {
			s.shift()
		}
	}
	return len(piece), nil
}

// shift decides on what a full buffer has, and makes room in it.
func (s *stream) shift() {
	end := s.length - ahead
	s.decide(end)
	keep := end - behind
	s.length = copy(s.buffer, s.buffer[keep:s.length])
	s.base, s.undecided = s.base+int64(keep), behind
}

// end decides on the rest. A search that goes on after it has to jump.
func (s *stream) end() { s.decide(s.length) }

// decide decides on the anchors that begin before end, and on none twice.
func (s *stream) decide(end int) {
	buffer := s.buffer[:s.length]
	for _, hit := range s.matcher.Match(buffer[s.undecided:]) {
		a := s.anchors[hit]
		for at := s.undecided; at < end && s.done&a.set == 0; at++ {
			next := bytes.Index(buffer[at:], a.text)
			if next < 0 || at+next >= end {
				break
			}
			at += next
			if a.rule.holds(buffer, at) && !s.constants(buffer, at+len(a.text)) {
				s.done |= a.set
				s.found(a.rule, s.base+int64(at))
			}
		}
	}
}

// constants tells whether another anchor follows close behind one: then a program's constants lie side by side, as in
// flowagent's own file. Those of letters alone say nothing: AKIA is in the random part of a credential now and then, and
// SecretAccessKey follows a key's id in JSON. One of the others is in a random part once in 70,000 at most.
func (s *Scanner) constants(buffer []byte, behind int) bool {
	next := buffer[behind:min(len(buffer), behind+longestAnchor)]
	return slices.ContainsFunc(s.anchors, func(a anchor) bool {
		return a.rule.paths == nil && !a.letters && bytes.Contains(next, a.text)
	})
}
