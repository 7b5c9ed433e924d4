package statexfer

import "encoding/json"

// StateVersion is the version of the ApplicationState format.
const StateVersion = "1.0"

// ApplicationState is the body of GET /state. Its keys all belong to the contract, also those that an SDK has nothing
// to say for.
type ApplicationState struct {
	PodName string `json:"pod_name"`
	AppName string `json:"app_name"`
	// CapturedAt is RFC 3339 in UTC.
	CapturedAt   string `json:"captured_at"`
	StateVersion string `json:"state_version"`
	// Data is the processor's state, a JSON object.
	Data           json.RawMessage            `json:"data"`
	Metrics        map[string]json.RawMessage `json:"metrics"`
	Connections    []json.RawMessage          `json:"connections"`
	ActiveSessions int64                      `json:"active_sessions"`
	SessionData    map[string]json.RawMessage `json:"session_data"`
	UptimeSeconds  float64                    `json:"uptime_seconds"`
	RequestCount   int64                      `json:"request_count"`
	// LastHealthTime is RFC 3339 in UTC, or null before the first probe.
	LastHealthTime *string `json:"last_health_time"`
}
