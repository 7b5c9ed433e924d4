package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/dory-io/dory/hack/internal/pki"
	"github.com/dory-io/dory/hack/internal/topology"
)

func (c *cluster) pkiFile(name string) string { return c.statePath("pki", name) }

// issueCertificates makes what the components prove themselves with; every client gets a kubeconfig of its own.
func (c *cluster) issueCertificates() error {
	authority, err := pki.Open(c.statePath("pki"), time.Now())
	if err != nil {
		return err
	}
	if err := authority.SigningKey("service-accounts"); err != nil {
		return err
	}
	for _, r := range c.certificates() {
		if err := authority.Issue(r); err != nil {
			return err
		}
	}
	return c.writeKubeconfigs()
}

func (c *cluster) certificates() []pki.Request {
	service := "kubernetes.default.svc"
	apiHosts := []string{
		c.plan.Host.String(), c.plan.KubernetesService().String(), "localhost",
		"kubernetes", "kubernetes.default", service, service + "." + topology.Domain,
	}
	requests := []pki.Request{
		{File: "admin", User: "kubernetes-admin", Groups: []string{"system:masters"}, ClientAccess: true},
		{File: "kubelet-client", User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}, ClientAccess: true},
		{File: "controller-manager", User: "system:kube-controller-manager", ClientAccess: true},
		{File: "scheduler", User: "system:kube-scheduler", ClientAccess: true},
		{File: "proxy", User: "system:kube-proxy", ClientAccess: true},
		{File: "coredns", User: "system:coredns", ClientAccess: true},
		{File: "front-proxy", User: frontProxy, ClientAccess: true},
		{File: "control-plane", User: "control-plane", Hosts: []string{c.plan.Host.String()}, Server: true},
	}
	for _, n := range c.plan.Nodes {
		apiHosts = append(apiHosts, n.APIAddress.String())
		requests = append(requests, pki.Request{
			File: n.Name, User: "system:node:" + n.Name, Groups: []string{"system:nodes"},
			Hosts: []string{n.Name, n.Address.String()}, Server: true, ClientAccess: true,
		})
	}
	return append(requests, pki.Request{File: "apiserver", User: "kube-apiserver", Hosts: apiHosts, Server: true})
}

func (c *cluster) writeKubeconfigs() error {
	servers := map[string]string{"controller-manager": "", "scheduler": "", "proxy": "", "coredns": ""}
	for _, n := range c.plan.Nodes {
		servers[n.Name] = fmt.Sprintf("https://%s:%d", n.APIAddress, c.options.APIPort)
	}
	for name, server := range servers {
		if server == "" {
			server = c.apiServer()
		}
		if err := c.writeKubeconfig(c.kubeconfigOf(name), name, server); err != nil {
			return err
		}
	}
	return c.writeKubeconfig(c.statePath("kubeconfig"), "admin", c.apiServer())
}

func (c *cluster) kubeconfigOf(name string) string { return c.statePath("kubeconfigs", name) }

func (c *cluster) writeKubeconfig(path, cert, server string) error {
	var parts [3][]byte
	for i, file := range []string{"ca.crt", cert + ".crt", cert + ".key"} {
		data, err := os.ReadFile(c.pkiFile(file))
		if err != nil {
			return fmt.Errorf("read what goes into a kubeconfig: %w", err)
		}
		parts[i] = data
	}
	data, err := json.MarshalIndent(kubeconfig(server, parts[0], parts[1], parts[2]), "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, data, 0o600)
}

// kubeconfig is a complete configuration, in JSON, which every reader of YAML takes.
func kubeconfig(server string, ca, cert, key []byte) map[string]any {
	encode := base64.StdEncoding.EncodeToString
	return map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "dory",
		"clusters": []any{map[string]any{"name": "dory", "cluster": map[string]any{
			"server": server, "certificate-authority-data": encode(ca),
		}}},
		"users": []any{map[string]any{"name": "dory", "user": map[string]any{
			"client-certificate-data": encode(cert), "client-key-data": encode(key),
		}}},
		"contexts": []any{map[string]any{"name": "dory", "context": map[string]any{"cluster": "dory", "user": "dory"}}},
	}
}
