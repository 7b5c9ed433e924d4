package dbsync

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
)

// maxNodeSelector is the API's bound, in labels.
const maxNodeSelector = 32

// placementOf says in which part of the fleet, and on which nodes of it, the row's processor runs.
func placementOf(row store.ProcessorRow) (doryv1alpha1.Location, *doryv1alpha1.ProcessorPlacement, error) {
	selector, err := nodeSelectorOf(row.NodeSelector)
	if err != nil {
		return "", nil, err
	}
	placement := &doryv1alpha1.ProcessorPlacement{NodeSelector: selector}
	if row.EdgeNode != nil {
		placement.EdgeNode = doryv1alpha1.ObjectName(row.EdgeNode.Name)
	}
	nowhere := placement.EdgeNode == "" && len(selector) == 0
	switch {
	case row.NodeType == store.NodeTypeEdge && nowhere:
		return "", nil, errors.New("node_type is edge, and neither edge_node_id nor node_selector says where: set one of them, or node_type to managed")
	case row.NodeType == store.NodeTypeEdge:
		return doryv1alpha1.LocationEdge, placement, nil
	case row.NodeType != store.NodeTypeManaged:
		return "", nil, fmt.Errorf("node_type is %q: set it to managed or edge", row.NodeType)
	case row.EdgeNode != nil:
		return "", nil, errors.New("edge_node_id is set and node_type is managed: set node_type to edge, or edge_node_id to NULL")
	case nowhere:
		return doryv1alpha1.LocationManaged, nil, nil
	}
	return doryv1alpha1.LocationManaged, placement, nil
}

// nodeSelectorOf reads the column node_selector: a JSON object of labels.
func nodeSelectorOf(raw json.RawMessage) (map[string]string, error) {
	if trimmed := bytes.TrimSpace(raw); len(trimmed) == 0 || string(trimmed) == "null" || string(trimmed) == "{}" {
		return nil, nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, fmt.Errorf("node_selector is %s (%s), expected a JSON object of labels such as {\"zone\": \"a\"}", shorten(string(raw)), jsonType(raw))
	}
	if len(values) > maxNodeSelector {
		return nil, fmt.Errorf("node_selector has %d labels, and the limit is %d: remove some", len(values), maxNodeSelector)
	}
	selector := make(map[string]string, len(values))
	var problems []error
	for _, key := range sortedKeys(values) {
		value, err := labelOf(key, values[key])
		selector[key] = value
		problems = append(problems, err)
	}
	return selector, errors.Join(problems...)
}

func labelOf(key string, raw json.RawMessage) (string, error) {
	var value string
	if err := json.Unmarshal(raw, &value); err != nil || jsonType(raw) != "a string" {
		return "", fmt.Errorf("node_selector.%s is %s (%s), expected a string: put it in quotes", shorten(key), shorten(string(raw)), jsonType(raw))
	}
	if faults := validation.IsQualifiedName(key); len(faults) > 0 {
		return "", fmt.Errorf("node_selector has the key %q, which is no label name: %s", shorten(key), strings.Join(faults, ", "))
	}
	if faults := validation.IsValidLabelValue(value); len(faults) > 0 {
		return "", fmt.Errorf("node_selector.%s is %q, which is no label value: %s", key, shorten(value), strings.Join(faults, ", "))
	}
	return value, nil
}
