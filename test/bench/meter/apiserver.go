package meter

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// APIServer counts requests, by whoever sent them.
type APIServer struct{ client rest.Interface }

// NewAPIServer reads the API server's own metrics.
func NewAPIServer(config *rest.Config) (*APIServer, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &APIServer{clients.RESTClient()}, nil
}

// noise is written whether or not there is anything to do: leases, which hold no state, and reviews, which are stored
// nowhere.
func noise(resource string) bool {
	return resource == "leases" || strings.HasSuffix(resource, "reviews")
}

// Writes counts the requests that write, by verb and resource, such as "POST pods/binding".
func (a *APIServer) Writes(ctx context.Context) (map[string]float64, error) {
	text, err := a.client.Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's metrics: %w", err)
	}
	families, err := parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	writes := map[string]float64{}
	families.each("apiserver_request_total", func(labels Labels, value float64) {
		if writing(labels["verb"]) && !noise(labels["resource"]) {
			writes[requestName(labels)] += value
		}
	})
	return writes, nil
}

func writing(verb string) bool {
	return slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}, verb)
}

func requestName(labels Labels) string {
	name := labels["verb"] + " " + labels["resource"]
	if sub := labels["subresource"]; sub != "" {
		name += "/" + sub
	}
	return name
}
