package dbsync

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// claims keep lanes off each other's rows and objects.
type claims struct {
	mu sync.Mutex
	// ids in work; true where the row was asked for again meanwhile.
	ids  map[string]bool
	keys map[types.NamespacedName]bool
}

func newClaims() *claims {
	return &claims{ids: map[string]bool{}, keys: map[types.NamespacedName]bool{}}
}

// claim is what one lane is busy with.
type claim struct {
	all  *claims
	ids  []string
	keys []types.NamespacedName
}

func (c *claims) open() *claim { return &claim{all: c} }

// rows claims the ones that nobody is busy with, and notes of the others that they are wanted again.
func (c *claim) rows(wanted []string) []string {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	for _, id := range wanted {
		if _, busy := c.all.ids[id]; busy {
			c.all.ids[id] = true
			continue
		}
		c.all.ids[id] = false
		c.ids = append(c.ids, id)
	}
	return c.ids
}

// object claims a key, unless somebody has it.
func (c *claim) object(key types.NamespacedName) bool {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.all.keys[key] {
		return false
	}
	c.all.keys[key] = true
	c.keys = append(c.keys, key)
	return true
}

// close gives everything back, and answers which rows are wanted again.
func (c *claim) close() []string {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	var again []string
	for _, id := range c.ids {
		if c.all.ids[id] {
			again = append(again, id)
		}
		delete(c.all.ids, id)
	}
	for _, key := range c.keys {
		delete(c.all.keys, key)
	}
	return again
}
