package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/dory-io/dory/internal/scheduler/schedulertest"
)

// model is what an API server would know: enough to build the snapshot again.
type model struct {
	snapshot   *Snapshot
	buffer     int32
	nodes      map[string]*corev1.Node
	pods       map[string]*Pod
	places     map[string]string // of pods, assumed or not
	namespaces map[string]map[string]string
	made       int
}

// TestTheSnapshotEqualsOneRebuilt lets random things happen and compares the snapshot with one that is made of what is
// left, by its parts and by what it decides.
func TestTheSnapshotEqualsOneRebuilt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buffer := rapid.SampledFrom([]int32{0, 10}).Draw(t, "buffer")
		m := &model{
			snapshot: New(Options{BufferPercent: buffer}), buffer: buffer, nodes: map[string]*corev1.Node{},
			pods: map[string]*Pod{}, places: map[string]string{}, namespaces: map[string]map[string]string{},
		}
		// Small numbers, so that small clusters come to what only large ones do.
		m.snapshot.regroupAt = rapid.SampledFrom([]int{3, manyClasses}).Draw(t, "regroup at")
		for i := range 3 {
			m.setNode(t, schedulertest.NodeName(i))
		}
		t.Repeat(map[string]func(*rapid.T){
			"set node":      func(t *rapid.T) { m.setNode(t, schedulertest.NodeName(rapid.IntRange(0, 5).Draw(t, "node"))) },
			"delete node":   m.deleteNode,
			"set pod":       m.setPod,
			"place pod":     m.placePod,
			"assume pod":    m.assumePod,
			"forget pod":    m.forgetPod,
			"delete pod":    m.deletePod,
			"end pod":       m.endPod,
			"set namespace": m.setNamespace,
			"what if":       m.whatIf,
			"":              m.check,
		})
	})
}

func (m *model) setNode(t *rapid.T, name string) {
	n := schedulertest.Node(t, name)
	m.nodes[name] = n
	m.snapshot.SetNode(n)
}

func (m *model) deleteNode(t *rapid.T) {
	name := m.anyNode(t)
	delete(m.nodes, name)
	m.snapshot.DeleteNode(name)
}

func (m *model) anyNode(t *rapid.T) string {
	if len(m.nodes) == 0 {
		t.Skip("no nodes")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.nodes))).Draw(t, "node")
}

func (m *model) newPod(t *rapid.T) *corev1.Pod {
	m.made++
	return schedulertest.Pod(t, fmt.Sprintf("pod-%02d", m.made))
}

func read(t *rapid.T, p *corev1.Pod) *Pod {
	return NewPod(p, PodOptions{Movable: rapid.Bool().Draw(t, "movable"), Placeholder: rapid.Bool().Draw(t, "placeholder")})
}

// setPod puts a pod anywhere, as others may, also where there is no room or no node.
func (m *model) setPod(t *rapid.T) {
	p := m.newPod(t)
	p.Spec.NodeName = schedulertest.NodeName(rapid.IntRange(0, 6).Draw(t, "node"))
	if rapid.IntRange(0, 9).Draw(t, "terminating") == 0 {
		p.DeletionTimestamp = &p.CreationTimestamp
	}
	m.put(read(t, p), p.Spec.NodeName)
	m.snapshot.SetPod(m.pods[Key(p.Namespace, p.Name)])
}

func (m *model) put(p *Pod, node string) { m.pods[p.Key], m.places[p.Key] = p, node }

// placePod lets a pod come to the node that is decided on.
func (m *model) placePod(t *rapid.T) {
	object := m.newPod(t)
	node, found := m.snapshot.Decide(NewPod(object, PodOptions{}), How{UseBuffer: rapid.Bool().Draw(t, "buffer")})
	if !found {
		return
	}
	object.Spec.NodeName = node
	p := read(t, object)
	m.put(p, node)
	m.snapshot.SetPod(p)
}

func (m *model) assumePod(t *rapid.T) {
	p := read(t, m.newPod(t))
	node := m.anyNode(t)
	if err := m.snapshot.Assume(p, node); err != nil {
		t.Fatal(err)
	}
	m.put(p, node)
}

func (m *model) anyPod(t *rapid.T) *Pod {
	if len(m.pods) == 0 {
		t.Skip("no pods")
	}
	return m.pods[rapid.SampledFrom(slices.Sorted(maps.Keys(m.pods))).Draw(t, "pod")]
}

func (m *model) forgetPod(t *rapid.T) {
	p := m.anyPod(t)
	m.snapshot.Forget(p)
	if p.Node == "" {
		delete(m.pods, p.Key)
	}
}

func (m *model) deletePod(t *rapid.T) {
	p := m.anyPod(t)
	m.snapshot.DeletePod(p.Key)
	delete(m.pods, p.Key)
}

func (m *model) endPod(t *rapid.T) {
	p := m.anyPod(t)
	m.snapshot.End(p.Key)
	ending := *p
	ending.terminating = true
	m.pods[p.Key] = &ending
}

func (m *model) setNamespace(t *rapid.T) {
	name := rapid.SampledFrom(schedulertest.Namespaces).Draw(t, "namespace")
	m.namespaces[name] = map[string]string{"colour": rapid.SampledFrom(schedulertest.Namespaces).Draw(t, "colour")}
	m.snapshot.SetNamespace(name, m.namespaces[name])
}

// whatIf lets other things happen to a copy, and goes on with the original or, the copy being the truth, with the copy.
func (m *model) whatIf(t *rapid.T) {
	other := *m
	other.snapshot = m.snapshot.Copy()
	other.nodes, other.pods, other.places = maps.Clone(m.nodes), maps.Clone(m.pods), maps.Clone(m.places)
	for range rapid.IntRange(1, 3).Draw(t, "events") {
		other.setPod(t)
		other.setNode(t, schedulertest.NodeName(rapid.IntRange(0, 6).Draw(t, "node")))
		other.deletePod(t)
	}
	m.made = other.made
	other.check(t)
	m.check(t)
	if rapid.Bool().Draw(t, "it is so") {
		*m = other
	}
}

func (m *model) rebuilt() *Snapshot {
	s := New(Options{BufferPercent: m.buffer})
	for name, labels := range m.namespaces {
		s.SetNamespace(name, labels)
	}
	for _, p := range m.pods {
		if p.Node != "" {
			s.SetPod(p)
		}
	}
	for _, n := range m.nodes {
		s.SetNode(n)
	}
	for _, p := range m.pods {
		if p.Node == "" {
			s.put(p, m.places[p.Key], true)
		}
	}
	return s
}

func (m *model) check(t *rapid.T) {
	fresh := m.rebuilt()
	if diff := cmp.Diff(parts(fresh), parts(m.snapshot)); diff != "" {
		t.Fatalf("the snapshot is not what it would be if rebuilt (-rebuilt +is):\n%s", diff)
	}
	consistent(t, m.snapshot)
	for i := range 3 {
		p := NewPod(schedulertest.Pod(t, fmt.Sprintf("probe-%d", i)), PodOptions{})
		for _, how := range []How{{}, {UseBuffer: true}, {Not: schedulertest.NodeName(0)}} {
			agree(t, fresh, m.snapshot, p, how)
		}
	}
}

// agree compares two snapshots by what they say of a pod, and what each says with itself.
func agree(t *rapid.T, fresh, is *Snapshot, p *Pod, how How) {
	want, wantFound := fresh.Decide(p, how)
	got, found := is.Decide(p, how)
	if got != want || found != wantFound {
		t.Fatalf("pod %s goes to %q (%t), and to %q (%t) in one rebuilt", p.Key, got, found, want, wantFound)
	}
	if diff := cmp.Diff(fresh.Explain(p, how), is.Explain(p, how), cmp.AllowUnexported(Refusal{})); diff != "" {
		t.Fatalf("refusals differ (-rebuilt +is):\n%s", diff)
	}
	if found != is.Fits(p, got, how) {
		t.Fatalf("pod %s goes to %q, where it does not fit", p.Key, got)
	}
	for _, name := range is.names() {
		if fits := is.Fits(p, name, how); fits && !found {
			t.Fatalf("pod %s is refused, and fits on %s", p.Key, name)
		}
	}
	agreeOnDisplacing(t, fresh, is, p, how)
}

// agreeOnDisplacing compares whose room two snapshots would give to a pod, and makes sure that it would do.
func agreeOnDisplacing(t *rapid.T, fresh, is *Snapshot, p *Pod, how How) {
	before := parts(is)
	want, wantGone, _ := fresh.Displace(p, how, nil)
	node, gone, found := is.Displace(p, how, nil)
	if diff := cmp.Diff(before, parts(is)); diff != "" {
		t.Fatalf("asking changed the snapshot (-before +after):\n%s", diff)
	}
	if node != want || !slices.EqualFunc(gone, wantGone, func(a, b *Pod) bool { return a.Key == b.Key }) {
		t.Fatalf("pod %s displaces %d pods on %q, and %d on %q in one rebuilt", p.Key, len(gone), node, len(wantGone), want)
	}
	if !found {
		return
	}
	without := is.Copy()
	for _, other := range gone {
		if !other.placeholder || other.Priority >= p.Priority {
			t.Fatalf("pod %s displaces %s", p.Key, other.Key)
		}
		without.DeletePod(other.Key)
	}
	if !without.Fits(p, node, how) {
		t.Fatalf("pod %s displaces %d pods on %s, and does not fit there", p.Key, len(gone), node)
	}
}

// parts of a snapshot that do not depend on how it came about.
func parts(s *Snapshot) map[string]any {
	parts := map[string]any{"nodes": s.known, "pods": s.pods.size}
	for name, n := range s.nodes.all {
		var pods []string
		for _, p := range n.pods {
			pods = append(pods, p.Key)
		}
		slices.Sort(pods)
		ports := map[string]int{}
		for _, port := range n.ports {
			ports[fmt.Sprint(port)]++
		}
		parts["node "+name] = map[string]any{
			"known": n.facts != nil, "cpu": n.used.cpu, "memory": n.used.memory, "storage": n.used.storage,
			"extended": maps.Collect(maps.All(n.extended)), "pods": pods, "ports": ports,
		}
	}
	for name, count := range s.keepers.all {
		parts["placeholders of "+name] = count
	}
	for key, c := range s.carriers.all {
		parts["carriers "+key] = maps.Clone(c.nodes)
	}
	return parts
}

// consistent checks what a snapshot says twice.
func consistent(t *rapid.T, s *Snapshot) {
	listed := 0
	for number, x := range s.indexes {
		if x == nil {
			continue
		}
		size := 0
		var last *entry
		for i := range x.chunks {
			c := x.chunks[i]
			for j := range c.entries {
				e := &c.entries[j]
				known, _ := s.nodes.get(e.node.name)
				if known != e.node || e.node.class != number || e.place() != e.node.place() || e.room != e.node.entry().room {
					t.Fatalf("node %s is not listed as it is", e.node.name)
				}
				if last != nil && last.compare(e.place()) >= 0 {
					t.Fatalf("node %s comes after %s", e.node.name, last.node.name)
				}
				last = e
				size++
			}
			summary := c
			summary.summarise()
			if c.first != summary.first || c.most != summary.most {
				t.Fatalf("a chunk of class %d is not summarised as it is", number)
			}
		}
		if size != x.size || size == 0 {
			t.Fatalf("class %d has %d nodes, and says %d", number, size, x.size)
		}
		listed += size
	}
	if listed != s.known {
		t.Fatalf("%d nodes are listed of %d", listed, s.known)
	}
	listed = 0
	for key, l := range s.listed.all {
		for _, p := range l.pods {
			at, found := s.pods.get(p.Key)
			label, value, _ := strings.Cut(key, "=")
			if !found || at.pod != p || p.labels[label] != value {
				t.Fatalf("pod %s is on list %s by mistake", p.Key, key)
			}
			listed++
		}
	}
	for p := range s.allPods {
		for _, label := range s.listedLabels {
			if _, there := p.labels[label]; there {
				listed--
			}
		}
	}
	if listed != 0 {
		t.Fatalf("%d pods too many are listed", listed)
	}
	for key, g := range s.groups.all {
		again := newTally(s.owner)
		for _, n := range s.nodes.all {
			for _, p := range n.pods {
				if g.selector.matches(p, s.namespaceLabels) {
					again.add(n, 1)
				}
			}
		}
		if !maps.Equal(again.nodes, g.nodes) || !maps.Equal(again.classes, g.classes) {
			t.Fatalf("group %s counts %v, %v; there are %v, %v", key, g.nodes, g.classes, again.nodes, again.classes)
		}
	}
}
