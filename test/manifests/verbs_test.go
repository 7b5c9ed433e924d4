package manifests

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// needKubelet are commands that the API server passes on to a kubelet, or that ask a metrics server or a person. The
// end-to-end suite has kubelets.
var needKubelet = regexp.MustCompile(`^kubectl (logs|exec|port-forward|top|edit|apply|diff)\b`)

var _ = Describe("README's verbs of kubectl", Ordered, func() {
	const name, pod = "verbs", "dory-verbs-x"

	BeforeAll(func(ctx context.Context) {
		p := create(ctx, processor(name, "{image: a, env: [{name: B, value: b}]}"))
		p.Object["status"] = map[string]any{"instance": map[string]any{"pod": pod}, "conditions": []any{condition("Ready"), condition("Updated")}}
		Expect(admin.Status().Update(ctx, p)).To(Succeed())
		create(ctx, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+pod+", namespace: default, labels: {dory.io/processor: "+name+"}}\n"+
			"spec: {containers: [{name: processor, image: a}]}")
		DeferCleanup(func(context.Context) { _, _ = kubectl("delete", "service", name) }) // The last test made it.
	})

	for _, command := range verbs() {
		if needKubelet.MatchString(command) {
			continue
		}
		It("work as printed: "+command, func() {
			out, err := kubectl(arguments(command, name, pod)...)
			Expect(err).NotTo(HaveOccurred(), out)
		})
	}

	DescribeTable("are needed, because kubectl knows its own kinds alone, in",
		func(args ...string) {
			out, err := kubectl(args...)
			Expect(err).To(HaveOccurred())
			Expect(out + err.Error()).To(Or(ContainSubstring(`no kind "Processor" is registered`), ContainSubstring("could not find the requested resource"), ContainSubstring("not found")))
		},
		Entry("rollout restart", "rollout", "restart", "processor/"+name),
		Entry("rollout status", "rollout", "status", "processor/"+name),
		Entry("scale", "scale", "--replicas=0", "processor/"+name),
		Entry("set image", "set", "image", "processor/"+name, "processor=b"),
		Entry("logs", "logs", "processor/"+name),
	)
})

func condition(kind string) map[string]any {
	return map[string]any{"type": kind, "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}
}

// verbs are the commands in the table, as printed.
func verbs() []string {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		panic(err)
	}
	_, section, _ := strings.Cut(string(text), "## The verbs of kubectl")
	section, _, _ = strings.Cut(section, "\n## ")
	var found []string
	for _, quoted := range regexp.MustCompile("`(kubectl [^`…]*)`").FindAllStringSubmatch(section, -1) {
		if len(strings.Fields(quoted[1])) > 2 {
			found = append(found, quoted[1])
		}
	}
	if len(found) < 10 {
		panic("README.md has no table of verbs any more")
	}
	return found
}

// arguments are what a shell would pass to kubectl.
func arguments(command, name, pod string) []string {
	command = strings.NewReplacer("$(date -u +%FT%TZ)", "2026-01-31T12:00:00Z", "NAME", name, "POD", pod).Replace(command)
	var args []string
	for _, word := range regexp.MustCompile(`(?:[^\s'"]|'[^']*'|"[^"]*")+`).FindAllString(command, -1) {
		if !strings.Contains(word, "'") {
			word = strings.ReplaceAll(word, `"`, "")
		}
		args = append(args, strings.ReplaceAll(word, "'", ""))
	}
	return args[1:]
}

var _ = Describe("kubectl explain", func() {
	It("shows each value on a line of its own, and defaults that no object shows", func() {
		out, err := kubectl("explain", "processor.spec.update.strategy")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(out).To(And(MatchRegexp(`(?m)^\s+- Recreate: the instance ends`), ContainSubstring("The default is Live.")))
		out, err = kubectl("explain", "processor.spec.migration")
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(strings.Join(strings.Fields(out), " ")).To(ContainSubstring("startTimeoutSeconds 300"))
	})
})

var _ = Describe("A restart", func() {
	It("is visible in the spec's generation where the field asks for it, and not where the annotation does", func(ctx context.Context) {
		p := create(ctx, processor("restarted", "image: a"))
		generation := func(change map[string]any) int64 {
			changed := &unstructured.Unstructured{Object: p.DeepCopy().Object}
			merge(changed.Object, change)
			Expect(admin.Update(ctx, changed)).To(Succeed())
			p = changed
			return changed.GetGeneration()
		}
		Expect(generation(metadata("annotations", "kubectl.kubernetes.io/restartedAt", "2026-01-31T12:00:00Z"))).To(Equal(int64(1)))
		Expect(generation(spec("restartedAt", "2026-01-31T12:00:00.5+01:00"))).To(Equal(int64(2)))
		Expect(generation(spec("restartedAt", nil))).To(Equal(int64(3)))
	})
})
