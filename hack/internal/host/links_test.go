package host

import (
	"net/netip"
	"testing"
)

func TestOverlapping(t *testing.T) {
	subnet := netip.MustParsePrefix("10.83.0.0/16")
	own := []string{"dory-host"}
	for name, c := range map[string]struct {
		route route
		want  bool
	}{
		"default":         {route{"default", "eth0"}, false},
		"zero":            {route{"0.0.0.0/0", "eth0"}, false},
		"elsewhere":       {route{"10.82.0.0/16", "eth0"}, false},
		"inside":          {route{"10.83.7.0/24", "docker0"}, true},
		"around":          {route{"10.0.0.0/8", "tun0"}, true},
		"one address":     {route{"10.83.0.9", "tun0"}, true},
		"our own":         {route{"10.83.0.0/24", "dory-host"}, false},
		"not an address":  {route{"broadcast", "eth0"}, false},
		"another address": {route{"192.0.2.1", "eth0"}, false},
	} {
		if _, got := overlapping(subnet, []route{c.route}, own); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestHardwareAddress(t *testing.T) {
	if got := hardwareAddress(netip.MustParseAddr("10.83.1.1")).String(); got != "02:00:0a:53:01:01" {
		t.Errorf("%s", got)
	}
}
