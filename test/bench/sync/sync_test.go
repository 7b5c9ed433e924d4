package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestInsertsAreSpreadEvenly(t *testing.T) {
	for _, inserts := range []int{0, 1, 20, 33, 100} {
		b := bench{inserts: inserts}
		n := 0
		for i := range 1000 {
			if b.isInsert(i) {
				n++
			}
			if want := (i + 1) * inserts / 100; n != want {
				t.Fatalf("%d inserts among the first %d changes with -inserts=%d, want %d", n, i+1, inserts, want)
			}
		}
	}
}

func TestCollect(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	seen := &journal{
		processors: map[string][]processorEvent{
			"new":     {{at(10), 7}},
			"changed": {{at(5), 3}, {at(30), 9}}, // the first event is of an earlier change
		},
		pods: map[string][]time.Time{"new": {at(-100), at(40)}}, // and so is the first pod
	}
	insert := change{id: "new", insert: true, at: at(0), revision: 7}
	update := change{id: "changed", at: at(2), revision: 8}

	found, missing, err := collect([]change{insert, update}, seen)
	if err != nil || missing != "" {
		t.Fatalf("missing %q, error %v", missing, err)
	}
	if len(found.processors) != 2 || found.processors[0] != 10*time.Millisecond || found.processors[1] != 28*time.Millisecond {
		t.Errorf("row to Processor: %v, want 10ms and 28ms", found.processors)
	}
	if len(found.pods) != 1 || found.pods[0] != 40*time.Millisecond {
		t.Errorf("row to pod: %v, want 40ms", found.pods)
	}

	late := change{id: "changed", at: at(2), revision: 10}
	if _, missing, _ := collect([]change{late}, seen); !strings.Contains(missing, "row changed") {
		t.Errorf("missing %q, want it to name the row whose change is not in any event", missing)
	}
	seen.broken = errors.New("a watch broke off")
	if _, _, err := collect([]change{insert}, seen); err == nil {
		t.Error("a watch that broke off is no error")
	}
}
