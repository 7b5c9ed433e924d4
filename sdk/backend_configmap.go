package sdk

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/dory-io/dory/internal/statexfer"
)

const (
	// requestTimeout bounds one request to the API server.
	requestTimeout = 10 * time.Second
	// writeAttempts bounds how often a write that met another writer's is tried again at once.
	writeAttempts = 5
)

// ConfigMapBackend keeps the state in a ConfigMap, in the format that all Dory SDKs share, up to 1 MiB. It needs the
// verbs get, create and update on that ConfigMap. It never writes blindly: a document of a higher position stays.
func ConfigMapBackend(config *rest.Config, namespace, name string) (Backend, error) {
	client, err := configMapClient(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for ConfigMap %s/%s: %w", namespace, name, err)
	}
	return &configMapBackend{client: client, namespace: namespace, name: name}, nil
}

// configMapClient knows ConfigMaps only, because the typed clients would make every processor's binary larger by all of the
// Kubernetes API.
func configMapClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.ConfigMap{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeJSON
	config.Timeout = requestTimeout
	config.UserAgent = "dory-sdk/" + Version
	return rest.RESTClientFor(config)
}

type configMapBackend struct {
	client          rest.Interface
	namespace, name string
}

// String names the ConfigMap.
func (b *configMapBackend) String() string {
	return "ConfigMap " + b.namespace + "/" + b.name
}

// Load implements Backend.
func (b *configMapBackend) Load(ctx context.Context) (Document, error) {
	cm, err := b.get(ctx)
	if b.isAbsent(err) {
		return Document{}, ErrNoState
	}
	if err != nil {
		return Document{}, err
	}
	return statexfer.FromConfigMap(cm)
}

// Save implements Backend. The resourceVersion of what was looked at goes with the write, so that a newer document
// cannot arrive unseen in between.
func (b *configMapBackend) Save(ctx context.Context, doc Document) error {
	for attempt := 1; ; attempt++ {
		err := b.write(ctx, doc)
		contended := apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
		if !contended || attempt == writeAttempts {
			return err
		}
	}
}

func (b *configMapBackend) write(ctx context.Context, doc Document) error {
	cm, err := b.get(ctx)
	create := b.isAbsent(err)
	switch {
	case create:
		cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: b.name}}
	case err != nil:
		return err
	default:
		if err := b.refuseToReplace(cm, doc); err != nil {
			return err
		}
	}
	if err := statexfer.IntoConfigMap(cm, doc, 0); err != nil {
		return err
	}
	return b.put(ctx, cm, create)
}

// refuseToReplace lets a document be replaced that cannot be read any more: the one in hand is known to be good.
func (b *configMapBackend) refuseToReplace(cm *corev1.ConfigMap, doc Document) error {
	saved, err := statexfer.DecodeMetadata([]byte(cm.Data[statexfer.ConfigMapKey]))
	if err != nil {
		return nil //nolint:nilerr // See above.
	}
	return refuseToReplace(saved, doc)
}

func (b *configMapBackend) get(ctx context.Context) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	err := b.client.Get().Namespace(b.namespace).Resource("configmaps").Name(b.name).Do(ctx).Into(cm)
	return cm, b.explain("reading", err)
}

// isAbsent believes only an API server that names the ConfigMap. A proxy's or another server's 404 says nothing about it.
func (b *configMapBackend) isAbsent(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == "configmaps" && details.Name == b.name
}

func (b *configMapBackend) put(ctx context.Context, cm *corev1.ConfigMap, create bool) error {
	request := b.client.Put().Name(b.name)
	if create {
		request = b.client.Post()
	}
	err := request.Namespace(b.namespace).Resource("configmaps").Body(cm).Do(ctx).Error()
	return b.explain("writing", err)
}

func (b *configMapBackend) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return fmt.Errorf("%s %s: %w", doing, b, errors.Join(errNamespaceEnds, err))
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s %s is not allowed: bind the ClusterRole dory-processor to the pod's ServiceAccount: %w", doing, b, err)
	case apierrors.IsRequestEntityTooLargeError(err):
		return fmt.Errorf("%s %s: %w", doing, b, errors.Join(statexfer.ErrTooLarge, err))
	}
	return fmt.Errorf("%s %s: %w", doing, b, err)
}
