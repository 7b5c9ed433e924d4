package placement

import "sync"

// letter tells the loop what happened.
type letter func(*loop)

// inbox holds letters until the loop reads them. Whoever sends one never waits.
type inbox struct {
	mu      sync.Mutex
	letters []letter
	arrived chan struct{}
}

func newInbox() *inbox { return &inbox{arrived: make(chan struct{}, 1)} }

func (i *inbox) send(l letter) {
	i.mu.Lock()
	i.letters = append(i.letters, l)
	i.mu.Unlock()
	select {
	case i.arrived <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (i *inbox) take() []letter {
	i.mu.Lock()
	defer i.mu.Unlock()
	letters := i.letters
	i.letters = nil
	return letters
}
