package processkubelet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// childVariable makes the test's binary a container.
const childVariable = "PROCESSKUBELET_TEST_CHILD"

var (
	config *rest.Config
	client kubernetes.Interface
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(childMain())
	}
	code, err := withAPIServer(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/processkubelet:", err)
		code = 1
	}
	os.Exit(code)
}

func withAPIServer(m *testing.M) (code int, err error) {
	environment := &envtest.Environment{}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		environment.BinaryAssetsDirectory = filepath.Join("..", "..", "bin", "k8s")
	}
	if config, err = environment.Start(); err != nil {
		return 0, fmt.Errorf("starting the API server (make envtest-binaries): %w", err)
	}
	defer func() { err = errors.Join(err, environment.Stop()) }()
	defer RemoveBuilds()
	if client, err = kubernetes.NewForConfig(config); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// childMain is a container: it says what it is, and serves what is probed. With IGNORE it does not heed SIGTERM.
func childMain() int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Printf("started role=%s epoch=%s node=%s ip=%s secret=%s\n",
		os.Getenv("DORY_ROLE"), os.Getenv("DORY_EPOCH"), os.Getenv("NODE_NAME"), os.Getenv("POD_IP"), os.Getenv("SECRET"))
	http.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/prestop", func(http.ResponseWriter, *http.Request) { fmt.Println("prestop") })
	server := &http.Server{Addr: os.Getenv("DORY_BIND_ADDRESS") + ":" + os.Getenv("PORT"), ReadHeaderTimeout: time.Second}
	go func() {
		if err := server.ListenAndServe(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	for range stop {
		fmt.Println("sigterm")
		if os.Getenv("IGNORE") == "" {
			return 0
		}
	}
	return 1
}

type world struct {
	*testing.T
	k         *Kubelet
	namespace string
	port      int32
}

func newWorld(t *testing.T, nodes ...Node) *world {
	t.Helper()
	w := &world{T: t, port: Port(t)}
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "pk-"}}, metav1.CreateOptions{})
	w.must(err)
	w.namespace = ns.Name
	_, err = client.CoreV1().ServiceAccounts(w.namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "runner"}}, metav1.CreateOptions{})
	w.must(err)
	_, err = client.CoreV1().Secrets(w.namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "token"}, StringData: map[string]string{"key": "hidden"},
	}, metav1.CreateOptions{})
	w.must(err)
	w.k = Start(t, Config{
		REST: config, Nodes: nodes, ProbePeriod: 20 * time.Millisecond, RestartDelay: 10 * time.Millisecond,
		Programs: map[string]Program{"child": {Path: os.Args[0], Env: []string{childVariable + "=1"}}},
	})
	t.Cleanup(func() {
		for _, node := range nodes {
			_ = client.CoreV1().Nodes().Delete(context.Background(), node.Name, metav1.DeleteOptions{})
		}
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) run(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	w.Helper()
	grace := int64(1)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: name, Labels: map[string]string{"app": name, "dory.io/epoch": "7"},
			Annotations: map[string]string{"dory.io/role": "primary"},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "runner", TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "processor", Image: "child", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: w.port}},
				Env: []corev1.EnvVar{
					{Name: "PORT", Value: strconv.Itoa(int(w.port))},
					{Name: "DORY_EPOCH", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['dory.io/epoch']"}}},
					{Name: "DORY_ROLE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['dory.io/role']"}}},
					{Name: "NODE_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}},
					{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
					{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
						LocalObjectReference: corev1.LocalObjectReference{Name: "token"}, Key: "key",
					}}},
				},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(w.port)}}},
				Lifecycle:      &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/prestop", Port: intstr.FromString("http")}}},
			}},
		},
	}
	for _, c := range change {
		c(pod)
	}
	created, err := client.CoreV1().Pods(w.namespace).Create(w.Context(), pod, metav1.CreateOptions{})
	w.must(err)
	return created
}

func (w *world) get(name string) *corev1.Pod {
	w.Helper()
	pod, err := client.CoreV1().Pods(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.must(err)
	return pod
}

func (w *world) until(what, name string, is func(*corev1.Pod) bool) *corev1.Pod {
	w.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		pod := w.get(name)
		if is(pod) {
			return pod
		}
		if time.Now().After(deadline) {
			w.Fatalf("pod %s is not %s: %+v", name, what, pod)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func ready(pod *corev1.Pod) bool {
	if pod == nil {
		return false
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.Status.ContainerStatuses[0].Ready
		}
	}
	return false
}

func (w *world) texts(name string) []string {
	var texts []string
	for _, line := range w.k.Lines(w.namespace, map[string]string{"app": name}) {
		texts = append(texts, line.Text)
	}
	return texts
}
