package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// httpClient trusts the cluster's authority and shows the administrator's certificate.
func (c *cluster) httpClient() (*http.Client, error) {
	ca, err := os.ReadFile(c.pkiFile("ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cert, err := tls.LoadX509KeyPair(c.pkiFile("admin.crt"), c.pkiFile("admin.key"))
	if err != nil {
		return nil, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	return &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
	}, nil
}

// get reads a URL of one of the components; out may be nil.
func (c *cluster) get(ctx context.Context, url string, out any) error {
	client, err := c.httpClient()
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", url, response.Status, firstLines(string(body), 3))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// answers makes a health check of a URL.
func (c *cluster) answers(url string) func(context.Context) error {
	return func(ctx context.Context) error { return c.get(ctx, url, nil) }
}

func firstLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[:min(n, len(lines))], "; ")
}

type nodeObject struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Status struct {
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

// ready is nil for a Ready node, otherwise it says why it is not.
func (n nodeObject) ready() error {
	for _, condition := range n.Status.Conditions {
		if condition.Type != "Ready" {
			continue
		}
		if condition.Status == "True" {
			return nil
		}
		return fmt.Errorf("node %s is not Ready: %s", n.Metadata.Name, condition.Message)
	}
	return fmt.Errorf("node %s has not reported yet", n.Metadata.Name)
}

func (c *cluster) nodeReady(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		var n nodeObject
		if err := c.get(ctx, c.apiServer()+"/api/v1/nodes/"+name, &n); err != nil {
			return err
		}
		return n.ready()
	}
}
