package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dory-io/dory/hack/internal/topology"
)

// loadImages imports image archives into the containerd of every node.
func (c *cluster) loadImages(ctx context.Context, archives []string) error {
	if len(archives) == 0 {
		return errors.New("name at least one image archive, as in cluster load-image x.tar")
	}
	if owner() == "" {
		return errors.New("no cluster is up to load images into; make cluster-up brings one up")
	}
	for _, archive := range archives {
		path, err := filepath.Abs(archive)
		if err != nil {
			return fmt.Errorf("image archive %q: %w", archive, err)
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("no image archive: %w", err)
		}
		if err := c.out.step("loaded "+archive+" into every node", func() error { return c.loadImage(ctx, path) }); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) loadImage(ctx context.Context, path string) error {
	var imports []func(context.Context) error
	for _, n := range c.plan.Nodes {
		imports = append(imports, func(ctx context.Context) error { return importImage(ctx, n, path) })
	}
	return parallel(ctx, imports...)
}

func importImage(ctx context.Context, n topology.Node, path string) error {
	if _, err := ctr(ctx, n, "images", "import", path); err != nil {
		return fmt.Errorf("import %s on %s: %w", path, n.Name, err)
	}
	return nil
}

// runtime brings up a node's containerd, and gives it the image of the container that holds a pod's namespaces.
func (c *cluster) runtime(n topology.Node) func(context.Context) error {
	return func(ctx context.Context) error {
		k, err := c.containerd(n)
		if err != nil {
			return err
		}
		if err := c.ensure(ctx, k); err != nil {
			return err
		}
		found, err := ctr(ctx, n, "images", "list", "--quiet", "name=="+topology.PauseImage)
		if err != nil || found != "" {
			return err
		}
		return importImage(ctx, n, filepath.Join(c.options.Bin, "pause.tar"))
	}
}
