package manifests

import (
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("config/samples", func() {
	samples, err := filepath.Glob(filepath.Join(configDir, "samples", "*.yaml"))
	if err != nil {
		panic(err)
	}
	for _, sample := range samples {
		if filepath.Base(sample) == "kustomization.yaml" {
			continue
		}
		It("has "+filepath.Base(sample)+", which a person may apply", func() {
			out, err := kubectl("apply", "--server-side", "--validate=strict", "-f", sample)
			Expect(err).NotTo(HaveOccurred(), out)
			Expect(out).To(ContainSubstring("serverside-applied"))
			out, err = kubectl("delete", "-f", sample)
			Expect(err).NotTo(HaveOccurred(), out)
		})
	}

	It("can be applied all at once", func() {
		dir := filepath.Join(configDir, "samples")
		out, err := kubectl("apply", "--server-side", "--validate=strict", "-k", dir)
		Expect(err).NotTo(HaveOccurred(), out)
		Expect(strings.Count(out, "serverside-applied")).To(BeNumerically(">=", len(samples)-1), "kustomization.yaml lists every sample")
		out, err = kubectl("delete", "-k", dir)
		Expect(err).NotTo(HaveOccurred(), out)
	})
})
