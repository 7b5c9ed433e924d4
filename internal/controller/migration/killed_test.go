package migration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/controller/migration"
	"github.com/dory-io/dory/test/faults/failpoints"
)

// allKills lets the operator be killed at every step of every strategy; else it is at some of them, in turn.
const allKills = "MIGRATION_KILLS"

// brittle is the operator's own binary, with the failpoints in it.
type brittle struct {
	binary, kubeconfig, log string
	failpoints              string
	cmd                     *exec.Cmd
	ended                   chan struct{}
}

func newBrittle() *brittle {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	b := &brittle{binary: filepath.Join(dir, "dory-operator"), kubeconfig: filepath.Join(dir, "kubeconfig"), log: filepath.Join(dir, "log")}
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	Expect(err).NotTo(HaveOccurred())
	names, err := failpoints.Build(context.Background(), root, "./cmd/dory-operator", b.binary, nil)
	Expect(err).NotTo(HaveOccurred())
	Expect(names).To(ContainElements("migrationBefore", "migrationAfter"))
	user, err := environment.AddUser(envtest.User{Name: "dory", Groups: []string{"system:masters"}}, nil)
	Expect(err).NotTo(HaveOccurred())
	content, err := user.KubeConfig()
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(b.kubeconfig, content, 0o600)).To(Succeed())
	DeferCleanup(func() {
		b.kill()
		if CurrentSpecReport().Failed() {
			text, err := os.ReadFile(b.log)
			GinkgoWriter.Println(err, string(text[max(0, len(text)-20000):]))
		}
	})
	return b
}

func (b *brittle) start() {
	GinkgoHelper()
	var listen net.ListenConfig
	listener, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	b.failpoints = listener.Addr().String()
	Expect(listener.Close()).To(Succeed())
	log, err := os.OpenFile(b.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	Expect(err).NotTo(HaveOccurred())
	defer func() { Expect(log.Close()).To(Succeed()) }()
	b.cmd = exec.Command(b.binary, "--leader-elect=false", "--leader-election-namespace=default", "--metrics-bind-address=0",
		"--health-probe-bind-address=0", "--discover-sdk=false", "--log-level=debug")
	b.cmd.Env = append(os.Environ(), "KUBECONFIG="+b.kubeconfig, "GOFAIL_HTTP="+b.failpoints)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	b.ended = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		// Pdeathsig comes when the thread ends that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := b.cmd.Start()
		started <- err
		if err == nil {
			_ = b.cmd.Wait()
			close(b.ended)
		}
	}()
	Expect(<-started).To(Succeed())
}

func (b *brittle) kill() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		<-b.ended
	}
}

func (b *brittle) dead() bool {
	select {
	case <-b.ended:
		return true
	default:
		return false
	}
}

// arm lets the operator die at the step, before or after it.
func (b *brittle) arm(failpoint, step string) {
	GinkgoHelper()
	Eventually(func() error { return b.gofail(http.MethodPut, failpoint, fmt.Sprintf("return(%q)", step)) }).Should(Succeed())
}

func (b *brittle) disarm(failpoint string) {
	GinkgoHelper()
	Expect(b.gofail(http.MethodDelete, failpoint, "")).To(Succeed())
}

func (b *brittle) gofail(method, failpoint, body string) error {
	request, err := http.NewRequestWithContext(context.Background(), method, "http://"+b.failpoints+"/"+failpoint, strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = errors.New(string(text))
	}
	return err
}

// takenIn are the steps that the operator's log tells of, in the order of the list.
func (b *brittle) takenIn(story func()) []string {
	GinkgoHelper()
	before, err := os.ReadFile(b.log)
	Expect(err).NotTo(HaveOccurred())
	story()
	after, err := os.ReadFile(b.log)
	Expect(err).NotTo(HaveOccurred())
	var taken []string
	for _, step := range migration.Steps() {
		if strings.Contains(string(after[len(before):]), `"step":"`+step+`"`) {
			taken = append(taken, step)
		}
	}
	return taken
}

var _ = Describe("A ProcessorMigration whose operator is killed", Serial, func() {
	DescribeTable("before and after every step goes on or goes back",
		func(strategy doryv1alpha1.MigrationStrategy, essential []string) {
			b := newBrittle()
			b.start()
			p := apply(newNamespace(), func(p *doryv1alpha1.Processor) { p.Spec.Migration.Strategy = strategy })
			moves := 0
			next := func() *doryv1alpha1.ProcessorMigration {
				moves++
				return move(p, fmt.Sprint("m", moves))
			}
			taken := b.takenIn(func() { Expect(ends(next())).To(HaveField("Phase", doryv1alpha1.MigrationSucceeded)) })
			Expect(taken).To(ContainElements(essential))
			for i, step := range taken {
				for j, failpoint := range []string{"migrationBefore", "migrationAfter"} {
					if os.Getenv(allKills) == "" && !(slices.Contains(essential, step) && i%2 == j) {
						continue
					}
					By(fmt.Sprint("dying: ", failpoint, " ", step))
					b.arm(failpoint, step)
					m := next()
					Eventually(func() bool { return b.dead() || over(m) }).Should(BeTrue())
					if b.dead() {
						b.start()
					} else {
						b.disarm(failpoint) // It came to this step only in the first move, such as that of the history.
					}
					Expect(ends(m)).To(HaveField("Phase", Or(Equal(doryv1alpha1.MigrationSucceeded), Equal(doryv1alpha1.MigrationRolledBack))))
					counts(p, "")
				}
			}
			if strategy != doryv1alpha1.MigrationOverlap {
				Expect(chain(p).Whole).To(BeTrue(), "%+v", chain(p))
			}
		},
		Entry("of Live", doryv1alpha1.MigrationLive, []string{
			"hold", "enter-placing", "create-target", "enter-handing-off", "step-aside", "quiesce", "restore", "confirm", "commit", "promote", "adopt", "enter-retiring", "delete-source",
		}),
		Entry("of StopAndCopy", doryv1alpha1.MigrationStopAndCopy, []string{"reserve", "delete-source", "gather", "commit", "enter-placing", "create-target"}),
		Entry("of Overlap", doryv1alpha1.MigrationOverlap, []string{"restore", "commit", "adopt", "delete-source"}),
	)
})

func over(m *doryv1alpha1.ProcessorMigration) bool {
	fresh := &doryv1alpha1.ProcessorMigration{}
	err := k8s.Get(context.Background(), client.ObjectKeyFromObject(m), fresh)
	return err == nil && fresh.Ended()
}
