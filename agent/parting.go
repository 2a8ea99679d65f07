package agent

import (
	"context"
	"sync"
)

// parting says whether the node is on its way out. That can be taken back, and begin again.
type parting struct {
	mu               sync.Mutex
	leaving, staying context.Context // one of them has ended: leaving while the node leaves, staying otherwise
	leave, stay      context.CancelFunc
}

func newParting() *parting {
	p := &parting{}
	p.leaving, p.leave = context.WithCancel(context.Background())
	p.staying, p.stay = context.WithCancel(context.Background())
	p.stay()
	return p
}

// Begin says that the node leaves.
func (p *parting) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leaving.Err() != nil {
		return
	}
	p.staying, p.stay = context.WithCancel(context.Background())
	p.leave()
}

// TakeBack says that the node stays after all.
func (p *parting) TakeBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.staying.Err() != nil {
		return
	}
	p.leaving, p.leave = context.WithCancel(context.Background())
	p.stay()
}

// Leaving ends when the node begins to leave; at once while it does.
func (p *parting) Leaving() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leaving
}

// Staying ends when the node doesn't leave any more; at once while it doesn't.
func (p *parting) Staying() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.staying
}
