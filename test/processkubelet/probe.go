package processkubelet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func (w *worker) probePeriod() time.Duration {
	period := w.k.config.ProbePeriod
	if probe := processorContainer(w.pod).ReadinessProbe; probe != nil && probe.PeriodSeconds > 0 {
		period = min(period, time.Duration(probe.PeriodSeconds)*time.Second)
	}
	return period
}

func (w *worker) probe() {
	p := w.current()
	if p == nil || p.cmd == nil || p.ended() {
		return
	}
	probe := processorContainer(w.pod).ReadinessProbe
	if probe == nil || probe.HTTPGet == nil {
		w.view.ready = true
		return
	}
	timeout := time.Duration(max(probe.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(w.k.ctx, timeout)
	defer cancel()
	ready := w.get(ctx, p, probe.HTTPGet) == nil
	if w.view.probed(ready, probe) {
		w.view.ready = ready
	}
}

// get asks the process itself, as a kubelet does from its own node.
func (w *worker) get(ctx context.Context, p *process, action *corev1.HTTPGetAction) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	url := "http://" + net.JoinHostPort(w.address.process, w.port(action.Port)) + action.Path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := kubeletHTTP.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

var kubeletHTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (w *worker) port(port intstr.IntOrString) string {
	for _, named := range processorContainer(w.pod).Ports {
		if port.Type == intstr.String && named.Name == port.StrVal {
			return strconv.Itoa(int(named.ContainerPort))
		}
	}
	return port.String()
}
