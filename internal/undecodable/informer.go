package undecodable

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kserializer "k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// NewInformer is the type of cache.Options.NewInformer.
type NewInformer = func(toolscache.ListerWatcher, runtime.Object, time.Duration, toolscache.Indexers) toolscache.SharedIndexInformer

// Informers makes the informers of a cache with these options. They keep an object of ours that cannot be decoded, marked.
// Those of other kinds are as ever.
func Informers(config *rest.Config, scheme *runtime.Scheme, options cache.Options) (NewInformer, error) {
	namespaces := slices.Collect(maps.Keys(options.DefaultNamespaces))
	if len(namespaces) > 1 {
		return nil, fmt.Errorf("a cache of the namespaces %q: only one or all can be cached", namespaces)
	}
	config = rest.CopyConfig(config)
	config.GroupVersion, config.APIPath = &doryv1alpha1.GroupVersion, "/apis"
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	config.NegotiatedSerializer = serializer{kserializer.WithoutConversionCodecFactory{CodecFactory: kserializer.NewCodecFactory(scheme)}}
	api, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", doryv1alpha1.GroupVersion, err)
	}
	parameters := runtime.NewParameterCodec(scheme)
	return func(usual toolscache.ListerWatcher, object runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
		if kind := KindOf(object); kind != "" {
			usual = source{api, parameters, scheme, kind, strings.Join(namespaces, "")}.listerWatcher()
		}
		return toolscache.NewSharedIndexInformer(usual, object, resync, indexers)
	}, nil
}

// source lists and watches one kind.
type source struct {
	api        rest.Interface
	parameters runtime.ParameterCodec
	scheme     *runtime.Scheme
	kind       string
	// namespace is empty for all.
	namespace string
}

// request begins one about all objects of the kind.
func (s source) request(options *metav1.ListOptions) *rest.Request {
	resource, _ := meta.UnsafeGuessKindToResource(doryv1alpha1.GroupVersion.WithKind(s.kind))
	namespaced := s.namespace != "" && s.kind != "EdgeNode"
	return s.api.Get().NamespaceIfScoped(s.namespace, namespaced).Resource(resource.Resource).VersionedParams(options, s.parameters)
}

func (s source) listerWatcher() *toolscache.ListWatch {
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := s.scheme.New(doryv1alpha1.GroupVersion.WithKind(s.kind + "List"))
			if err != nil {
				return nil, fmt.Errorf("making a list: %w", err)
			}
			return list, s.request(&options).Do(ctx).Into(list)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch, options.AllowWatchBookmarks = true, true
			return s.request(&options).Watch(ctx)
		},
	}
}
