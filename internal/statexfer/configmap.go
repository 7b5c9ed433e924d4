package statexfer

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// ConfigMapKey is the data key that holds the document.
	ConfigMapKey = "state"
	// ConfigMapPrefix starts the name of every state ConfigMap.
	ConfigMapPrefix = "dory-state-"
	// LabelStateOwner marks state ConfigMaps, with the value "true".
	LabelStateOwner = "dory.io/state-owner"
	// AnnotationTTL says for how many seconds the other SDKs consider the state worth keeping.
	AnnotationTTL = "dory.io/state-ttl"
	// AnnotationCreated is when the state was written, in seconds since 1970.
	AnnotationCreated = "dory.io/created-timestamp"
	// DefaultTTL is the contract's time to live.
	DefaultTTL = time.Hour
	// MaxConfigMapBytes is how much data the API server takes in one ConfigMap: 1 MiB.
	MaxConfigMapBytes = 1 << 20
)

// IntoConfigMap puts the document into the ConfigMap with the contract's label and annotations and leaves everything
// else in it as it is. A ttl of 0 stands for DefaultTTL. It fails with ErrTooLarge, and changes nothing, where
// the API server would refuse the result for its size.
func IntoConfigMap(cm *corev1.ConfigMap, d Document, ttl time.Duration) error {
	text, err := d.Encode()
	if err != nil {
		return err
	}
	if size := otherData(cm) + len(text); size > MaxConfigMapBytes {
		return fmt.Errorf("%w: ConfigMap %s would hold %d bytes, the limit of the API server is %d: keep less state, or keep it in a volume",
			ErrTooLarge, cm.Name, size, MaxConfigMapBytes)
	}
	if ttl == 0 {
		ttl = DefaultTTL
	}
	set(&cm.Data, ConfigMapKey, string(text))
	set(&cm.Labels, LabelStateOwner, "true")
	set(&cm.Annotations, AnnotationTTL, strconv.FormatInt(int64(ttl/time.Second), 10))
	set(&cm.Annotations, AnnotationCreated, strconv.FormatInt(d.Metadata.Time.Unix(), 10))
	return nil
}

func otherData(cm *corev1.ConfigMap) int {
	size := 0
	for key, value := range cm.Data {
		if key != ConfigMapKey {
			size += len(value)
		}
	}
	for _, value := range cm.BinaryData {
		size += len(value)
	}
	return size
}

func set(m *map[string]string, key, value string) {
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[key] = value
}

// FromConfigMap reads the document and verifies it as Decode does.
func FromConfigMap(cm *corev1.ConfigMap) (Document, error) {
	text, ok := cm.Data[ConfigMapKey]
	if !ok {
		return Document{}, fmt.Errorf("%w: ConfigMap %s has no data key %q", ErrMalformed, cm.Name, ConfigMapKey)
	}
	d, err := Decode([]byte(text))
	if err != nil {
		return Document{}, fmt.Errorf("ConfigMap %s: %w", cm.Name, err)
	}
	return d, nil
}
