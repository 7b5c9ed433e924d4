package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/dory-io/dory/internal/webhook"
)

// Who makes the webhook's certificate.
const (
	certificatesOwn      = "Own"
	certificatesExternal = "External"
)

func (o *options) validateWebhook() error {
	const lastPort = 65535
	switch {
	case o.webhookPort < 0 || o.webhookPort > lastPort:
		return fmt.Errorf("--webhook-port=%d is no port: use 1 to %d, or 0 for none", o.webhookPort, lastPort)
	case o.webhookCertificates != certificatesOwn && o.webhookCertificates != certificatesExternal:
		return fmt.Errorf("--webhook-certificates=%s: use %s or %s", o.webhookCertificates, certificatesOwn, certificatesExternal)
	default:
		return nil
	}
}

// addWebhook has every replica answer evictions, and be ready only once it can.
func (o *operator) addWebhook(ctx context.Context) error {
	if o.options.webhookPort == 0 {
		return nil
	}
	namespace := ownNamespace(o.options.leaderElectNS)
	if namespace == "" {
		return errors.New("--webhook-port outside of a cluster needs --leader-election-namespace, where the certificate is kept")
	}
	served, err := webhook.Add(ctx, o.manager, webhook.Config{
		Desk: o.desk, Filled: o.desk.Ready, Namespace: namespace, Port: o.options.webhookPort,
		External: o.options.webhookCertificates == certificatesExternal, Clock: o.clock,
	})
	if err != nil {
		return fmt.Errorf("adding the webhook of evictions: %w", err)
	}
	if err := o.manager.AddReadyzCheck("webhook", served.Ready); err != nil {
		return fmt.Errorf("adding the webhook to /readyz: %w", err)
	}
	return nil
}
