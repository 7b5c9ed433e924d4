package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

type link struct {
	Name      string   `json:"ifname"`
	Master    string   `json:"master"`
	Flags     []string `json:"flags"`
	Addresses []struct {
		Family string     `json:"family"`
		Local  netip.Addr `json:"local"`
	} `json:"addr_info"`
}

func links(ctx context.Context) ([]link, error) {
	out, err := Run(ctx, "ip", "-json", "address", "show")
	if err != nil {
		return nil, err
	}
	var all []link
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("read the links that ip shows: %w", err)
	}
	return all, nil
}

// EnsureBridge makes a bridge, gives it the addresses that it lacks and sets it up.
//
// Its hardware address is fixed. A bridge without one takes the lowest of its ports', another one each time such a port comes or
// goes. A pod that goes on talking to the API server's Service then keeps the former address of its gateway for good (what the
// Service's address translation rewrites gets through all the same, and confirms it), and reaches nothing else on the host.
func EnsureBridge(ctx context.Context, name string, addresses ...netip.Prefix) error {
	all, err := links(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(l link) bool { return l.Name == name })
	if i < 0 {
		if _, err := Run(ctx, "ip", "link", "add", name, "type", "bridge"); err != nil {
			return err
		}
		all, i = append(all, link{}), len(all)
	}
	if len(addresses) > 0 {
		if _, err := Run(ctx, "ip", "link", "set", name, "address", hardwareAddress(addresses[0].Addr()).String()); err != nil {
			return err
		}
	}
	for _, address := range addresses {
		if all[i].has(address.Addr()) {
			continue
		}
		if _, err := Run(ctx, "ip", "address", "add", address.String(), "dev", name); err != nil {
			return err
		}
	}
	_, err = Run(ctx, "ip", "link", "set", name, "up")
	return err
}

// hardwareAddress makes one out of an IPv4 address, in the range that is free for local use.
func hardwareAddress(a netip.Addr) net.HardwareAddr {
	four := a.As4()
	return append(net.HardwareAddr{0x02, 0x00}, four[:]...)
}

func (l link) has(a netip.Addr) bool {
	for _, have := range l.Addresses {
		if have.Local == a {
			return true
		}
	}
	return false
}

// LinksOf lists those of the named bridges that exist, and the links that hang from any of them.
func LinksOf(ctx context.Context, bridges []string) ([]string, error) {
	all, err := links(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range all {
		if slices.Contains(bridges, l.Name) || slices.Contains(bridges, l.Master) {
			names = append(names, l.Name)
		}
	}
	return names, nil
}

// DeleteLinks removes links; one that has gone by itself meanwhile, as a veth does with its namespace, is fine.
func DeleteLinks(ctx context.Context, names []string) error {
	for _, name := range names {
		if out, err := Run(ctx, "ip", "link", "delete", name); err != nil && !strings.Contains(out, "Cannot find device") {
			return err
		}
	}
	return nil
}

// EnsureRoute sends the range into the link: packets that no rule has rewritten must not leave the machine.
func EnsureRoute(ctx context.Context, to netip.Prefix, dev string) error {
	_, err := Run(ctx, "ip", "route", "replace", to.String(), "dev", dev)
	return err
}

type route struct {
	Destination string `json:"dst"`
	Device      string `json:"dev"`
}

// CheckFree fails when a route of this machine overlaps the range, unless it goes to one of the cluster's own bridges.
func CheckFree(ctx context.Context, subnet netip.Prefix, own []string) error {
	out, err := Run(ctx, "ip", "-json", "-4", "route", "show", "table", "all")
	if err != nil {
		return err
	}
	var routes []route
	if err := json.Unmarshal([]byte(out), &routes); err != nil {
		return fmt.Errorf("read the routes that ip shows: %w", err)
	}
	if r, found := overlapping(subnet, routes, own); found {
		return fmt.Errorf("the cluster's addresses %s overlap this machine's route to %s (link %q): choose another /16 with --subnet",
			subnet, r.Destination, r.Device)
	}
	return nil
}

func overlapping(subnet netip.Prefix, routes []route, own []string) (route, bool) {
	for _, r := range routes {
		destination := r.Destination
		if !strings.Contains(destination, "/") {
			destination += "/32"
		}
		prefix, err := netip.ParsePrefix(destination)
		if err != nil || slices.Contains(own, r.Device) {
			continue // "default" and the like
		}
		if prefix.Bits() > 0 && prefix.Overlaps(subnet) {
			return r, true
		}
	}
	return route{}, false
}
