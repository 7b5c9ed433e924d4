package main

import (
	"fmt"

	"github.com/dory-io/dory/test/bench/podlog"
)

// turns finds the pods of every move that succeeded. Those of a StatefulSet have one name, so there the order tells.
func turns(s *story, all []*podlog.Chapter) ([]podlog.Turn, error) {
	if s.kind.strategy == "" {
		return turnsInOrder(s, all)
	}
	byPod := map[string]*podlog.Chapter{}
	for _, c := range all {
		byPod[c.Pod] = c
	}
	var found []podlog.Turn
	for i, m := range s.ended {
		if !m.succeeded() {
			continue
		}
		source, target := byPod[m.source], byPod[m.target]
		if source == nil || target == nil {
			return nil, fmt.Errorf("%s: no log of what %s did before move %d, or %s after it", s.name, m.source, i, m.target)
		}
		found = append(found, podlog.TurnOf(source, target))
	}
	return found, nil
}

func turnsInOrder(s *story, all []*podlog.Chapter) ([]podlog.Turn, error) {
	if len(all) != len(s.ended)+1 {
		return nil, fmt.Errorf("%s: logs of %d pods, want those of %d", s.name, len(all), len(s.ended)+1)
	}
	var found []podlog.Turn
	for i := range s.ended {
		found = append(found, podlog.TurnOf(all[i], all[i+1]))
	}
	return found, nil
}
