package pod

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

// MaxReferences bounds how many objects of one pod are watched.
const MaxReferences = 64

// Reference is a ConfigMap or Secret that a pod is configured by.
type Reference struct {
	Kind doryv1alpha1.ConfigKind
	Name string
	// Optional says that the pod starts without the object, too.
	Optional bool
	// Keys are those without which it does not start.
	Keys []string
}

// References are what the pod's environment and volumes refer to, by kind and name, and how many there are. Processors'
// states and the token that guards them are no configuration: the former change all the time.
func References(spec *corev1.PodSpec) (found []Reference, total int) {
	r := references{}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			r.environment(c)
		}
	}
	for _, v := range spec.Volumes {
		r.volume(v.VolumeSource)
	}
	for _, reference := range r {
		slices.Sort(reference.Keys)
		reference.Keys = slices.Compact(reference.Keys)
		found = append(found, *reference)
	}
	slices.SortFunc(found, func(a, b Reference) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return found[:min(len(found), MaxReferences)], len(found)
}

type references map[objectKey]*Reference

type objectKey struct {
	kind doryv1alpha1.ConfigKind
	name string
}

func (r references) environment(c corev1.Container) {
	for _, from := range c.EnvFrom {
		if s := from.ConfigMapRef; s != nil {
			r.add(doryv1alpha1.ConfigKindConfigMap, s.Name, s.Optional)
		}
		if s := from.SecretRef; s != nil {
			r.add(doryv1alpha1.ConfigKindSecret, s.Name, s.Optional)
		}
	}
	for _, env := range c.Env {
		if env.ValueFrom == nil {
			continue
		}
		if s := env.ValueFrom.ConfigMapKeyRef; s != nil {
			r.add(doryv1alpha1.ConfigKindConfigMap, s.Name, s.Optional, s.Key)
		}
		if s := env.ValueFrom.SecretKeyRef; s != nil {
			r.add(doryv1alpha1.ConfigKindSecret, s.Name, s.Optional, s.Key)
		}
	}
}

func (r references) volume(v corev1.VolumeSource) {
	if s := v.ConfigMap; s != nil {
		r.add(doryv1alpha1.ConfigKindConfigMap, s.Name, s.Optional, paths(s.Items)...)
	}
	if s := v.Secret; s != nil {
		r.add(doryv1alpha1.ConfigKindSecret, s.SecretName, s.Optional, paths(s.Items)...)
	}
	if v.Projected == nil {
		return
	}
	for _, source := range v.Projected.Sources {
		if s := source.ConfigMap; s != nil {
			r.add(doryv1alpha1.ConfigKindConfigMap, s.Name, s.Optional, paths(s.Items)...)
		}
		if s := source.Secret; s != nil {
			r.add(doryv1alpha1.ConfigKindSecret, s.Name, s.Optional, paths(s.Items)...)
		}
	}
}

func paths(items []corev1.KeyToPath) []string {
	var keys []string
	for _, item := range items {
		keys = append(keys, item.Key)
	}
	return keys
}

// add notes a reference. An object is optional only if all that refers to it can do without it.
func (r references) add(kind doryv1alpha1.ConfigKind, name string, optional *bool, keys ...string) {
	if name == "" || !Configures(kind, name) {
		return
	}
	canDoWithout := optional != nil && *optional
	known := r[objectKey{kind, name}]
	if known == nil {
		known = &Reference{Kind: kind, Name: name, Optional: true}
		r[objectKey{kind, name}] = known
	}
	if !canDoWithout {
		known.Optional = false
		known.Keys = append(known.Keys, keys...)
	}
}

// Configures says whether an object of this name can be configuration. States, their copies and tokens are not.
func Configures(kind doryv1alpha1.ConfigKind, name string) bool {
	if kind == doryv1alpha1.ConfigKindSecret {
		return name != TokenSecret
	}
	return !strings.HasPrefix(name, statexfer.ConfigMapPrefix) && !strings.HasPrefix(name, "dory-checkpoint-")
}
