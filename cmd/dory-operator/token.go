package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dory-io/dory/internal/pod"
)

const (
	// tokenKeySecret is the Secret in the operator's namespace that holds the key of all state tokens.
	tokenKeySecret = "dory-state-token-key"
	tokenKeyField  = "key"
	tokenKeyBytes  = 32
)

// stateTokens reads the key, or makes it at the first start. A nil error with a namespace of "" means that the operator
// works on somebody's desk, with a key that lasts as long as the process.
func stateTokens(ctx context.Context, config *rest.Config, namespace string) (pod.Tokens, error) {
	fresh := make([]byte, tokenKeyBytes)
	if _, err := rand.Read(fresh); err != nil {
		return pod.Tokens{}, fmt.Errorf("reading random bytes for the key of the state tokens: %w", err)
	}
	if namespace == "" {
		return pod.NewTokens(fresh), nil
	}
	c, err := client.New(config, client.Options{})
	if err != nil {
		return pod.Tokens{}, fmt.Errorf("making a client for the key of the state tokens: %w", err)
	}
	key, err := readOrMakeKey(ctx, c, namespace, fresh)
	if err != nil {
		return pod.Tokens{}, fmt.Errorf("the key of the state tokens, Secret %s/%s: %w", namespace, tokenKeySecret, err)
	}
	return pod.NewTokens(key), nil
}

func readOrMakeKey(ctx context.Context, c client.Client, namespace string, fresh []byte) ([]byte, error) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: tokenKeySecret},
		Data:       map[string][]byte{tokenKeyField: fresh},
	}
	err := c.Create(ctx, secret)
	if err == nil {
		return fresh, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("creating it: %w", err)
	}
	if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: tokenKeySecret}, secret); err != nil {
		return nil, fmt.Errorf("reading it: %w", err)
	}
	key := secret.Data[tokenKeyField]
	if len(key) < tokenKeyBytes {
		return nil, fmt.Errorf("its field %q has %d bytes, %d are needed: delete it and restart the operator, which makes another", tokenKeyField, len(key), tokenKeyBytes)
	}
	return key, nil
}

// ownNamespace is where the operator keeps its Lease and its key.
func ownNamespace(configured string) string {
	if configured != "" {
		return configured
	}
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "" // Not in a cluster.
	}
	return strings.TrimSpace(string(text))
}
