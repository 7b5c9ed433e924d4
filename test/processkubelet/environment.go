package processkubelet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serviceAccountVariable tells programs made by Build where their ServiceAccount's token is.
const serviceAccountVariable = "PROCESSKUBELET_SERVICEACCOUNT"

// environment is that of the pod's container. What refers to the pod's metadata is read from the object as it is now, as
// kubelets do at every start of a container.
func (w *worker) environment(ctx context.Context, pod *corev1.Pod, program Program, dir string) ([]string, error) {
	var names []string
	values := map[string]string{}
	for _, variable := range processorContainer(pod).Env {
		value := expand(variable.Value, values)
		if variable.ValueFrom != nil {
			found, err := w.valueFrom(ctx, pod, variable.ValueFrom)
			if err != nil {
				return nil, fmt.Errorf("environment variable %s: %w", variable.Name, err)
			}
			if found == nil {
				continue
			}
			value = *found
		}
		if _, again := values[variable.Name]; !again {
			names = append(names, variable.Name)
		}
		values[variable.Name] = value
	}
	env := make([]string, 0, len(names))
	for _, name := range names {
		env = append(env, name+"="+values[name])
	}
	access, err := w.apiAccess(ctx, pod, dir)
	if err != nil {
		return nil, err
	}
	return slices.Concat(env, access, program.Env, []string{
		"DORY_BIND_ADDRESS=" + w.address.process, "HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", // What ends by itself shall be gone.
	}), nil
}

// apiAccess is what every pod gets of its ServiceAccount: a token that dies with the pod, and the way to the API server.
func (w *worker) apiAccess(ctx context.Context, pod *corev1.Pod, dir string) ([]string, error) {
	if w.token == "" {
		name := pod.Spec.ServiceAccountName
		if name == "" {
			name = "default"
		}
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}
		answer, err := w.k.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("asking for a token of ServiceAccount %s: %w", name, err)
		}
		w.token = answer.Status.Token
		for file, content := range map[string][]byte{"token": []byte(w.token), "ca.crt": w.k.config.REST.CAData, "namespace": []byte(pod.Namespace)} {
			if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
				return nil, err
			}
		}
	}
	host, port, err := net.SplitHostPort(w.node.api.address())
	if err != nil {
		return nil, err
	}
	return []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port, serviceAccountVariable + "=" + dir}, nil
}

// valueFrom answers nil for what is optional and not there.
func (w *worker) valueFrom(ctx context.Context, pod *corev1.Pod, source *corev1.EnvVarSource) (*string, error) {
	switch {
	case source.FieldRef != nil:
		value, err := w.field(pod, source.FieldRef.FieldPath)
		return &value, err
	case source.SecretKeyRef != nil:
		secret, err := w.k.client.CoreV1().Secrets(pod.Namespace).Get(ctx, source.SecretKeyRef.Name, metav1.GetOptions{})
		return keyOf(secret.Data, err, "Secret", source.SecretKeyRef.Name, source.SecretKeyRef.Key, source.SecretKeyRef.Optional)
	case source.ConfigMapKeyRef != nil:
		configMap, err := w.k.client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, source.ConfigMapKeyRef.Name, metav1.GetOptions{})
		return keyOf(configMap.Data, err, "ConfigMap", source.ConfigMapKeyRef.Name, source.ConfigMapKeyRef.Key, source.ConfigMapKeyRef.Optional)
	}
	return nil, fmt.Errorf("a source that is not played: %s", source)
}

func keyOf[T string | []byte](data map[string]T, err error, kind, name, key string, optional *bool) (*string, error) {
	value, ok := data[key]
	switch {
	case err == nil && ok:
		text := string(value)
		return &text, nil
	case optional != nil && *optional && (err == nil || apierrors.IsNotFound(err)):
		return nil, nil //nolint:nilnil // Absent and optional: no variable.
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("%s %s has no key %s", kind, name, key)
}

var subscript = regexp.MustCompile(`^metadata\.(labels|annotations)\['(.+)'\]$`)

func (w *worker) field(pod *corev1.Pod, path string) (string, error) {
	if parts := subscript.FindStringSubmatch(path); parts != nil {
		if parts[1] == "labels" {
			return pod.Labels[parts[2]], nil
		}
		return pod.Annotations[parts[2]], nil
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return w.address.pod, nil
	case "status.hostIP", "status.hostIPs":
		return "127.0.0.1", nil
	}
	return "", fmt.Errorf("a field that is not played: %s", path)
}

var reference = regexp.MustCompile(`\$\$|\$\([^)]*\)`)

// expand replaces $(NAME) by the variables before it, as Kubernetes does.
func expand(text string, values map[string]string) string {
	return reference.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		if value, ok := values[strings.TrimSuffix(strings.TrimPrefix(found, "$("), ")")]; ok {
			return value
		}
		return found
	})
}
