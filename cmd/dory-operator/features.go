package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/dory-io/dory/internal/controller/evictionresponder"
)

// features are what is off unless somebody asks for it.
type features struct {
	// evictionResponder responds to Evictions of lifecycle.k8s.io/v1alpha1, which Kubernetes 1.37 begins with.
	evictionResponder bool
}

// parse reads a list such as A=true,B=false.
func (f *features) parse(list string) error {
	known := map[string]*bool{"EvictionResponder": &f.evictionResponder}
	for setting := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(setting, "=")
		feature, ok := known[name]
		if !ok {
			return fmt.Errorf("%q is no feature: there is EvictionResponder", name)
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		*feature = on
	}
	return nil
}

// podResponders are whom pods name as the ones to ask before they are evicted.
func (f *features) podResponders() []corev1.EvictionResponder {
	if !f.evictionResponder {
		return nil
	}
	return []corev1.EvictionResponder{evictionresponder.Responder()}
}

// addResponder does nothing on a cluster that does not serve the API: the webhook is there in any case.
func (o *operator) addResponder(ctx context.Context) error {
	if !o.options.features.evictionResponder {
		return nil
	}
	kind := lifecyclev1alpha1.SchemeGroupVersion.WithKind("Eviction")
	switch _, err := o.manager.GetRESTMapper().RESTMapping(kind.GroupKind(), kind.Version); {
	case meta.IsNoMatchError(err):
		ctrl.Log.Info("--feature-gates=EvictionResponder=true has no effect: the API server does not serve it", "api", kind.GroupVersion())
		return nil
	case err != nil:
		return fmt.Errorf("asking whether the API server serves %s: %w", kind, err)
	}
	responder := evictionresponder.New(evictionresponder.Config{
		Client: o.manager.GetClient(), Desk: o.desk, Clock: o.clock, Patience: o.options.drainPatience,
	})
	if err := responder.SetupWithManager(ctx, o.manager); err != nil {
		return fmt.Errorf("adding the eviction responder: %w", err)
	}
	return nil
}
