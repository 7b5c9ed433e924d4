package main

import (
	"context"
	"fmt"

	"k8s.io/client-go/metadata"

	"github.com/dory-io/dory/internal/controller/configchange"
)

func (o *operator) addConfigChange(context.Context) error {
	client, err := metadata.NewForConfigAndClient(metadata.ConfigFor(o.manager.GetConfig()), o.manager.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a client for metadata: %w", err)
	}
	reconciler := configchange.New(configchange.Config{
		Client: o.manager.GetClient(), APIReader: o.apiReader(), Metadata: client, Self: o.manager.GetClient(),
		Recorder: o.manager.GetEventRecorder("dory-configchange"), Clock: o.clock, SecretKey: o.tokens.For,
	})
	if err := reconciler.SetupWithManager(o.manager); err != nil {
		return fmt.Errorf("adding the controller of changed configuration: %w", err)
	}
	return nil
}
