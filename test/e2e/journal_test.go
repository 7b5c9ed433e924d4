//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// journal has every line that the pods of one processor print. The counter's lines form a hash chain, so that the journal
// proves whether an iteration was lost or done twice, and their times whether two instances worked at once.
type journal struct {
	name   client.ObjectKey
	logs   *logbook
	prefix string
}

// chapter is the work of one container, from its start to its end.
type chapter struct {
	pod        string
	iterations []iteration
	text       []string
}

// iteration is a line of the counter.
type iteration struct {
	N     int64     `json:"n"`
	Hash  string    `json:"hash"`
	Epoch int64     `json:"epoch"`
	Time  time.Time `json:"time"`
}

// keepJournal follows all pods of a processor, those that come as well, until the test ends.
func keepJournal(key client.ObjectKey) journal {
	GinkgoHelper()
	return journal{name: key, logs: keepLogs(key.Namespace), prefix: "dory-" + key.Name + "-"}
}

// chapters are in the order in which they began. A container that did no work has none.
func (j journal) chapters() []chapter {
	GinkgoHelper()
	var all []chapter
	for _, log := range j.logs.of(j.prefix) {
		c := chapter{pod: log.pod}
		for _, line := range log.lines() {
			var i iteration
			if json.Unmarshal([]byte(line), &i) != nil || i.N < 1 || i.Hash == "" {
				continue // the SDK's log
			}
			c.iterations = append(c.iterations, i)
			c.text = append(c.text, line)
		}
		if len(c.iterations) > 0 {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b chapter) int { return a.iterations[0].Time.Compare(b.iterations[0].Time) })
	return all
}

// worked waits until the pod has worked for a while, since the last start of its container.
func (j journal) worked(ctx context.Context, pod string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		chapters := j.chapters()
		g.Expect(chapters).NotTo(BeEmpty())
		last := chapters[len(chapters)-1]
		g.Expect(last.pod).To(Equal(pod))
		g.Expect(len(last.iterations)).To(BeNumerically(">=", 10))
	}).WithContext(ctx).Should(Succeed())
}

// isWhole checks that every iteration, over all pods, follows from the one before, and that no two pods took part at once.
func (j journal) isWhole(ctx context.Context) {
	GinkgoHelper()
	j.takesTurns()
	var text strings.Builder
	for _, c := range j.chapters() {
		text.WriteString(strings.Join(c.text, "\n") + "\n")
	}
	cmd := exec.CommandContext(ctx, filepath.Join("..", "..", "bin", "counter"), "verify")
	cmd.Stdin = bytes.NewBufferString(text.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		AddReportEntry("journal of "+j.name.String(), text.String())
	}
	Expect(err).NotTo(HaveOccurred(), string(out))
	AddReportEntry("counter verify", string(out), ReportEntryVisibilityFailureOrVerbose)
}

// lastOf is the last iteration of a container.
func lastOf(c chapter) iteration { return c.iterations[len(c.iterations)-1] }

// goesOnFrom checks that the last container began with what the checkpoint holds, or with what is newer: the counter's
// hash is that of all iterations before, so that it needs no more than the number and the hash of one.
func (j journal) goesOnFrom(safe doryv1alpha1.ProcessorCheckpoint) {
	GinkgoHelper()
	chapters := j.chapters()
	Expect(len(chapters)).To(BeNumerically(">=", 2))
	began := chapters[len(chapters)-1].iterations[0]
	Expect(began.N).To(BeNumerically(">", *safe.Sequence), "%+v", safe)
	for _, i := range chapters[0].iterations {
		if i.N == began.N {
			Expect(began.Hash).To(Equal(i.Hash))
		}
	}
}

// lostNoMoreThan checks that the last container did nothing again that the one before it did longer ago, before its end.
func (j journal) lostNoMoreThan(interval time.Duration) {
	GinkgoHelper()
	chapters := j.chapters()
	before, after := chapters[len(chapters)-2], chapters[len(chapters)-1]
	for _, i := range before.iterations {
		if i.N == after.iterations[0].N {
			Expect(lastOf(before).Time.Sub(i.Time)).To(BeNumerically("<=", interval), "from %d to %d", i.N, lastOf(before).N)
		}
	}
}

// pauses are the times between the last iteration of one pod and the first of the next.
func (j journal) pauses() []time.Duration {
	GinkgoHelper()
	var pauses []time.Duration
	chapters := j.chapters()
	for i := 1; i < len(chapters); i++ {
		pauses = append(pauses, chapters[i].iterations[0].Time.Sub(lastOf(chapters[i-1]).Time))
	}
	return pauses
}

// takesTurns checks that no container began to work before the one before it had worked for the last time, and that each
// had a higher epoch, but for one that its kubelet restarted.
func (j journal) takesTurns() {
	GinkgoHelper()
	chapters := j.chapters()
	Expect(chapters).NotTo(BeEmpty(), "the journal of %s is empty", j.name)
	for i := 1; i < len(chapters); i++ {
		before, after := chapters[i-1], chapters[i]
		last, first := before.iterations[len(before.iterations)-1], after.iterations[0]
		Expect(first.Time).To(BeTemporally(">", last.Time), "%s and %s worked at once: %+v, %+v", before.pod, after.pod, last, first)
		if before.pod == after.pod {
			Expect(first.Epoch).To(BeNumerically(">=", last.Epoch), "it may have been promoted anew")
		} else {
			Expect(first.Epoch).To(BeNumerically(">", last.Epoch), "%s, then %s", before.pod, after.pod)
		}
	}
}
