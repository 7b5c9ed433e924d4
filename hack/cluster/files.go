package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dory-io/dory/hack/internal/topology"
)

const (
	// Places outside the cluster's own directories in which its components leave files.
	cniResults    = "/var/lib/cni/results"
	containerLogs = "/var/log/containers"
	shimSockets   = "/run/containerd/s"
	// Every kubelet makes this one, wherever its own directory is.
	deviceSocket = "/var/lib/kubelet/device-plugins/kubelet.sock"
)

// sharedDirs may have been made by the cluster's components, and may be in use by others.
var sharedDirs = []string{
	cniResults, "/var/lib/cni", containerLogs, shimSockets, "/run/containerd/fifo", "/run/containerd",
	"/var/lib/kubelet/device-plugins", "/var/lib/kubelet", topology.HostVolumes, "/run/mount",
}

func (c *cluster) removeFiles(ctx context.Context) error {
	stray, err := c.strayFiles()
	if err != nil {
		return err
	}
	for _, file := range stray {
		if err := os.RemoveAll(file); err != nil {
			return fmt.Errorf("remove what a component left: %w", err)
		}
	}
	removeDeadSocket(ctx, deviceSocket)
	for _, dir := range sharedDirs {
		_ = os.Remove(dir) // only if nothing of anybody else is in it
	}
	if _, err := os.Stat(c.userPath(markerFile)); err == nil {
		if err := os.RemoveAll(c.options.State); err != nil {
			return fmt.Errorf("remove the state directory: %w", err)
		}
		_ = os.Remove(filepath.Dir(c.options.State)) // .run, when the cluster was all that it held
	}
	if err := os.RemoveAll(topology.RunDir); err != nil {
		return fmt.Errorf("remove the runtime directory: %w", err)
	}
	return nil
}

// strayFiles lists what the cluster's components left outside its directories.
func (c *cluster) strayFiles() ([]string, error) {
	var found []string
	for _, n := range c.plan.Nodes {
		found = append(found, shimSocketsOf(n)...)
	}
	found = append(found, resultsFor(cniResults, topology.RunDir)...)
	links, err := linksInto(containerLogs, topology.StateMount)
	return append(found, links...), err
}

// resultsFor lists what CNI remembers about network namespaces below dir.
func resultsFor(results, dir string) []string {
	files, _ := filepath.Glob(filepath.Join(results, "*")) //nolint:errcheck // the pattern is well-formed
	var found []string
	for _, file := range files {
		data, err := os.ReadFile(file) //nolint:gosec // CNI's own
		if err == nil && bytes.Contains(data, []byte(dir+"/")) {
			found = append(found, file)
		}
	}
	return found
}

// removeDeadSocket removes a socket on which nobody listens.
func removeDeadSocket(ctx context.Context, path string) {
	connection, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = connection.Close()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path)
	}
}

// shimSocketsOf reads from the bundles of a node's containers where their shims listened.
func shimSocketsOf(n topology.Node) []string {
	files, _ := filepath.Glob(n.RunDir() + "/containerd/io.containerd.runtime.v2.task/k8s.io/*/address") //nolint:errcheck // well-formed
	var sockets []string
	for _, file := range files {
		address, err := os.ReadFile(file) //nolint:gosec // containerd's own
		socket, ok := strings.CutPrefix(string(address), "unix://")
		if err != nil || !ok || filepath.Dir(socket) != shimSockets {
			continue
		}
		if _, err := os.Lstat(socket); err == nil {
			sockets = append(sockets, socket)
		}
	}
	return sockets
}

// linksInto lists the symbolic links in a directory that lead below target.
func linksInto(dir, target string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for links that the kubelets left: %w", err)
	}
	var found []string
	for _, e := range entries {
		link := filepath.Join(dir, e.Name())
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, target+"/") {
			found = append(found, link)
		}
	}
	return found, nil
}

// ownedDir makes a directory for another user.
func ownedDir(dir string, who *syscall.Credential, mode fs.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("make a directory for uid %d: %w", who.Uid, err)
	}
	if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
		return fmt.Errorf("give uid %d its directory: %w", who.Uid, err)
	}
	return nil
}
