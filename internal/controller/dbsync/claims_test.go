package dbsync

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

func TestNoTwoLanesWorkOnOneRow(t *testing.T) {
	all := newClaims()
	first, second := all.open(), all.open()
	if got := first.rows([]string{"a", "b"}); !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("the first lane got %v", got)
	}
	if got := second.rows([]string{"b", "c"}); !cmp.Equal(got, []string{"c"}) {
		t.Errorf("the second lane got %v, although the first is busy with b", got)
	}
	if again := second.close(); again != nil {
		t.Errorf("%v are to come again, although nobody asked", again)
	}
	if again := first.close(); !cmp.Equal(again, []string{"b"}) {
		t.Errorf("%v are to come again, expected b, which was asked for meanwhile", again)
	}
	third := all.open()
	if got := third.rows([]string{"a", "b", "c"}); len(got) != 3 {
		t.Errorf("of three free rows a lane got %v", got)
	}
	if again := third.close(); again != nil {
		t.Errorf("%v are to come again, although that was done", again)
	}
}

func TestNoTwoLanesWriteOneObject(t *testing.T) {
	all, key := newClaims(), types.NamespacedName{Namespace: "ns", Name: "p"}
	first, second := all.open(), all.open()
	if !first.object(key) || second.object(key) || first.object(key) {
		t.Error("an object was claimed twice")
	}
	first.close()
	if !second.object(key) {
		t.Error("an object that was given back cannot be claimed")
	}
}
