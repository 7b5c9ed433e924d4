package faults

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

const (
	kills     = 20
	creations = 200
)

// The operator is killed at random while it makes the first pods of 200 processors, half of them rows and half applied. In
// every life of it some of the 200 come in, so that each kill meets creations under way. FAULTS_ROUNDS repeats all of it.
func TestOperatorKilledDuringCreations(t *testing.T) {
	rounds := 1
	if text := os.Getenv("FAULTS_ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		t.Run(fmt.Sprint("round ", round+1), killedDuringCreations)
	}
}

func killedDuringCreations(t *testing.T) {
	w := newWorld(t)
	random, witness := w.random(), w.watch()
	var ids []string
	for range kills {
		for range creations / kills {
			ids = append(ids, w.create(len(ids)))
		}
		o := w.start(shared.shipped, alone)
		pods := witness.births() + 1 + random.IntN(creations/kills)
		w.until("pods are made", func() error {
			if made := witness.births(); made < min(pods, len(ids)) {
				return fmt.Errorf("%d of %d", made, pods)
			}
			return nil
		})
		time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		o.kill()
	}
	w.start(shared.shipped, alone)
	w.allRun(creations)
	witness.agrees(ids)
}

// create makes the nth processor, and answers its id.
func (w *world) create(n int) string {
	w.Helper()
	id := fmt.Sprintf("p-%d", n)
	if n%2 == 0 {
		w.row(id)
	} else {
		w.apply(id)
	}
	return id
}
