// Package kube asks the real kube-scheduler, in this process and without an API server: what its filters let through, and
// which node its scoring prefers.
package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// Scheduler is a kube-scheduler whose cache is filled by hand.
type Scheduler struct {
	scheduler  *scheduler.Scheduler
	namespaces cache.Indexer
	schedule   func(context.Context, framework.Framework, fwk.CycleState, *framework.QueuedPodInfo) (scheduler.ScheduleResult, error)

	next     *corev1.Pod
	feasible []string // of the last question
	chosen   string
	filter   bool
	err      error
}

// errAsked ends every cycle before anything is bound.
var errAsked = errors.New("this was only a question")

// errNotAsked is left where a cycle ends before it comes to the question.
var errNotAsked = errors.New("kube-scheduler passed over the pod")

// New makes a scheduler with the default configuration, changed as wanted.
func New(ctx context.Context, change func(*config.KubeSchedulerConfiguration)) (*Scheduler, error) {
	configuration, err := latest.Default()
	if err != nil {
		return nil, fmt.Errorf("reading kube-scheduler's default configuration: %w", err)
	}
	change(configuration)
	// Nothing is ever sent: no informer is started, and no cycle gets as far as binding.
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "127.0.0.1:1"})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	recorders := profile.NewRecorderFactory(events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()}))
	made, err := scheduler.New(ctx, client, factory, nil, recorders,
		scheduler.WithProfiles(configuration.Profiles...),
		scheduler.WithParallelism(1),
		scheduler.WithPercentageOfNodesToScore(configuration.PercentageOfNodesToScore),
	)
	if err != nil {
		return nil, fmt.Errorf("making a kube-scheduler: %w", err)
	}
	s := &Scheduler{scheduler: made, namespaces: factory.Core().V1().Namespaces().Informer().GetIndexer(), schedule: made.SchedulePod}
	made.NextPod = s.nextPod
	made.SchedulePod = s.answer
	made.FailureHandler = func(context.Context, framework.Framework, *framework.QueuedPodInfo, *fwk.Status, *fwk.NominatingInfo, time.Time) {
	}
	return s, nil
}

// Unchanged is the default configuration.
func Unchanged(*config.KubeSchedulerConfiguration) {}

// MostAllocated scores the fullest nodes highest, as the documented profile for bin packing does.
func MostAllocated(c *config.KubeSchedulerConfiguration) {
	for i := range c.Profiles[0].PluginConfig {
		if fit, ok := c.Profiles[0].PluginConfig[i].Args.(*config.NodeResourcesFitArgs); ok {
			fit.ScoringStrategy.Type = config.MostAllocated
		}
	}
}

// SetNode adds a node.
func (s *Scheduler) SetNode(n *corev1.Node) { s.scheduler.Cache.AddNode(logr.Discard(), n) }

// DeleteNode takes a node out.
func (s *Scheduler) DeleteNode(n *corev1.Node) error {
	return s.scheduler.Cache.RemoveNode(logr.Discard(), n)
}

// SetPod adds a pod that is in its place.
func (s *Scheduler) SetPod(p *corev1.Pod) error { return s.scheduler.Cache.AddPod(logr.Discard(), p) }

// DeletePod takes a pod out.
func (s *Scheduler) DeletePod(p *corev1.Pod) error {
	return s.scheduler.Cache.RemovePod(logr.Discard(), p)
}

// SetNamespace adds a namespace.
func (s *Scheduler) SetNamespace(n *corev1.Namespace) error { return s.namespaces.Add(n) }

// Feasible are the nodes that pass every filter, in the order of their names.
func (s *Scheduler) Feasible(ctx context.Context, p *corev1.Pod) ([]string, error) {
	s.ask(ctx, p, true)
	slices.Sort(s.feasible)
	return s.feasible, s.err
}

// Choose is the node that scores highest; empty if none is feasible.
func (s *Scheduler) Choose(ctx context.Context, p *corev1.Pod) (string, error) {
	s.ask(ctx, p, false)
	return s.chosen, s.err
}

func (s *Scheduler) ask(ctx context.Context, p *corev1.Pod, filter bool) {
	s.next, s.filter, s.feasible, s.chosen, s.err = p, filter, nil, "", errNotAsked
	s.scheduler.ScheduleOne(klog.NewContext(ctx, logr.Discard()))
}

func (s *Scheduler) nextPod(klog.Logger) (*framework.QueuedPodInfo, error) {
	pod := s.next.DeepCopy()
	pod.Spec.SchedulerName = corev1.DefaultSchedulerName // It takes no other pods.
	info, err := framework.NewPodInfo(pod)
	if err != nil {
		s.err = fmt.Errorf("reading pod %s: %w", s.next.Name, err)
		return nil, s.err
	}
	return &framework.QueuedPodInfo{PodInfo: info}, nil
}

// answer stands where kube-scheduler decides, after it has taken its snapshot.
func (s *Scheduler) answer(ctx context.Context, f framework.Framework, state fwk.CycleState, pod *framework.QueuedPodInfo) (scheduler.ScheduleResult, error) {
	if s.filter {
		s.feasible, s.err = filtered(ctx, f, state, pod.Pod)
		return scheduler.ScheduleResult{}, errAsked
	}
	s.err = nil
	result, err := s.schedule(ctx, f, state, pod)
	var unfit *framework.FitError
	switch {
	case err == nil:
		s.chosen = result.SuggestedHost
	case errors.As(err, &unfit), errors.Is(err, scheduler.ErrNoNodesAvailable):
	default:
		s.err = err
	}
	return scheduler.ScheduleResult{}, errAsked
}

func filtered(ctx context.Context, f framework.Framework, state fwk.CycleState, pod *corev1.Pod) ([]string, error) {
	only, status, _ := f.RunPreFilterPlugins(ctx, state, pod)
	switch {
	case status.IsRejected():
		return nil, nil
	case !status.IsSuccess():
		return nil, status.AsError()
	}
	nodes, err := f.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return nil, err
	}
	var passed []string
	for _, node := range nodes {
		name := node.Node().Name
		if !only.AllNodes() && !only.NodeNames.Has(name) {
			continue
		}
		switch status := f.RunFilterPlugins(ctx, state, pod, node); {
		case status.IsSuccess():
			passed = append(passed, name)
		case !status.IsRejected():
			return nil, status.AsError()
		}
	}
	return passed, nil
}
