package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
	"github.com/dory-io/dory/test/bench/cluster"
	"github.com/dory-io/dory/test/bench/meter"
)

const (
	contractPort = 8080
	plainPort    = 8090
	// warmUps are not counted: connections, and the heaps of all programs.
	warmUps = 3
)

// peer is a pod of test/bench/handoff/peer.
type peer struct {
	pod   *corev1.Pod
	state statexfer.Endpoint
	plain string
}

// compareTransfers moves a large state from one pod to another as the operator does, and the same bytes between the same
// pods as any program can. It does both in turn, so that whatever else the machine does hits both.
func (b *bench) compareTransfers(ctx context.Context) error {
	b.progress.Say("transferring %d times 8 MiB, and copying them plainly as often", b.transfers)
	source, target, err := b.startPeers(ctx)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 2}
	defer transport.CloseIdleConnections()
	c := copier{client: &http.Client{Transport: transport}}
	size, err := b.seed(ctx, &c, source)
	if err != nil {
		return err
	}
	ours, theirs, err := b.timeBoth(ctx, &c, source, target)
	if err != nil {
		return err
	}
	our, their := meter.Percentile(ours, 0.5), meter.Percentile(theirs, 0.5)
	b.figures["transfers"] = b.transfers
	b.figures["transfer_8m_p50_ms"], b.figures["plain_8m_p50_ms"] = meter.Milliseconds(our), meter.Milliseconds(their)
	b.figures["transfer_mib_per_s"] = meter.Rounded(float64(size)/mib/our.Seconds(), 0)
	b.figures["transfer_over_plain"] = meter.Rounded(float64(their)/float64(our), 3)
	for _, p := range []peer{source, target} {
		if err := b.cluster.Client.Delete(ctx, p.pod, client.GracePeriodSeconds(0)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) timeBoth(ctx context.Context, c *copier, source, target peer) (ours, theirs []time.Duration, err error) {
	xfer := statexfer.NewClient(statexfer.ClientConfig{})
	for i := range warmUps + b.transfers {
		begun := b.clock.Now()
		if err := transfer(ctx, xfer, source.state, target.state); err != nil {
			return nil, nil, err
		}
		between := b.clock.Now()
		if err := c.copy(ctx, source.plain, target.plain); err != nil {
			return nil, nil, err
		}
		if i >= warmUps {
			ours, theirs = append(ours, between.Sub(begun)), append(theirs, b.clock.Since(between))
		}
	}
	return ours, theirs, nil
}

func transfer(ctx context.Context, c *statexfer.Client, source, target statexfer.Endpoint) error {
	state, err := c.Capture(ctx, source)
	if err != nil {
		return err
	}
	restored, err := c.Restore(ctx, target, state)
	if err != nil {
		return err
	}
	return c.Verify(ctx, target, state, restored)
}

// startPeers starts a processor that works on one node, and a standby on the other.
func (b *bench) startPeers(ctx context.Context) (source, target peer, err error) {
	peers := []*corev1.Pod{b.peer("source", b.cluster.Nodes[0], doryv1alpha1.RolePrimary), b.peer("target", b.cluster.Nodes[1], doryv1alpha1.RoleStandby)}
	for _, p := range peers {
		if err := b.cluster.Client.Create(ctx, p); err != nil {
			return peer{}, peer{}, err
		}
	}
	for _, p := range peers {
		err := cluster.Until(ctx, "a ready pod "+p.Name, func(ctx context.Context) (bool, string, error) {
			err := b.cluster.Client.Get(ctx, client.ObjectKeyFromObject(p), p)
			return cluster.Ready(p), fmt.Sprintf("%+v", p.Status), err
		})
		if err != nil {
			return peer{}, peer{}, err
		}
	}
	return peerAt(peers[0]), peerAt(peers[1]), nil
}

func peerAt(p *corev1.Pod) peer {
	at := func(port int) string { return "http://" + net.JoinHostPort(p.Status.PodIP, strconv.Itoa(port)) }
	return peer{pod: p, state: statexfer.Endpoint{URL: at(contractPort)}, plain: at(plainPort)}
}

func (b *bench) peer(name, node, role string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.cluster.Namespace, Name: "peer-" + name},
		Spec: corev1.PodSpec{
			NodeSelector:                 map[string]string{corev1.LabelHostname: node},
			AutomountServiceAccountToken: new(false),
			Containers: []corev1.Container{{
				Name: "peer", Image: b.peerImage, ImagePullPolicy: corev1.PullIfNotPresent,
				Env: []corev1.EnvVar{
					{Name: "PROCESSOR_ID", Value: "peer"},
					{Name: "DORY_STATE_BACKEND", Value: "none"},
					{Name: "DORY_EPOCH", Value: "1"},
					{Name: "DORY_ROLE", Value: role},
				},
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
					Path: "/ready", Port: intstr.FromInt32(contractPort),
				}}},
			}},
		},
	}
}

// copier does the least that any program does to bring bytes from here to there.
type copier struct{ client *http.Client }

// seed gives the plain server of the source the very bytes that its processor answers, once it has made its state, and
// says how many they are.
func (b *bench) seed(ctx context.Context, c *copier, source peer) (size int, err error) {
	err = cluster.Until(ctx, "a state of 8 MiB", func(ctx context.Context) (bool, string, error) {
		text, err := c.get(ctx, source.state.URL+"/state")
		if err == nil && len(text) > 8*mib {
			err = c.post(ctx, source.plain, text)
		}
		size = len(text)
		return size > 8*mib, fmt.Sprintf("%d bytes", size), err
	})
	return size, err
}

func (c *copier) copy(ctx context.Context, source, target string) error {
	text, err := c.get(ctx, source)
	if err != nil {
		return err
	}
	return c.post(ctx, target, text)
}

func (c *copier) get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // it was read
	if response.StatusCode != http.StatusOK || response.ContentLength < 0 {
		return nil, fmt.Errorf("GET %s: %s, %d bytes", url, response.Status, response.ContentLength)
	}
	text := make([]byte, response.ContentLength)
	if _, err := io.ReadFull(response.Body, text); err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	return text, nil
}

func (c *copier) post(ctx context.Context, url string, text []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was read
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("POST %s: answered %s", url, response.Status), err)
	}
	return nil
}
