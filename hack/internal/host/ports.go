package host

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dory-io/dory/hack/internal/process"
)

// Port is an address that the cluster is about to listen on.
type Port struct {
	Network string // tcp or udp
	Address netip.AddrPort
	For     string
	// Flag is how a person moves it elsewhere, empty where it cannot be moved.
	Flag string
}

type socket struct {
	address netip.AddrPort
	inode   string
}

// CheckPorts fails when somebody already listens on one of the ports, and names who.
func CheckPorts(ports []Port) error {
	for _, p := range ports {
		sockets, err := listeners(p.Network)
		if err != nil {
			return err
		}
		if s, taken := holder(p.Address, sockets); taken {
			return portError(p, s)
		}
	}
	return nil
}

func portError(p Port, s socket) error {
	who := "an unknown process"
	if pid, command := owner(s.inode); pid != 0 {
		who = fmt.Sprintf("pid %d (%s)", pid, command)
	}
	advice := "stop it"
	if p.Flag != "" {
		advice += " or choose another port with " + p.Flag
	}
	return fmt.Errorf("port %d/%s on %s is needed for %s, but %s listens on %s: %s",
		p.Address.Port(), p.Network, p.Address.Addr(), p.For, who, s.address, advice)
}

// holder finds a listener that would be in the way: on the same port and the same or the unspecified address.
func holder(want netip.AddrPort, sockets []socket) (socket, bool) {
	for _, s := range sockets {
		if s.address.Port() != want.Port() {
			continue
		}
		if have := s.address.Addr().Unmap(); have == want.Addr() || have.IsUnspecified() {
			return s, true
		}
	}
	return socket{}, false
}

func listeners(network string) ([]socket, error) {
	var all []socket
	for _, suffix := range []string{"", "6"} {
		data, err := os.ReadFile("/proc/net/" + network + suffix) //nolint:gosec // tcp or udp
		if err != nil {
			continue // a kernel without IPv6
		}
		sockets, err := parseSockets(string(data), network)
		if err != nil {
			return nil, fmt.Errorf("read /proc/net/%s%s: %w", network, suffix, err)
		}
		all = append(all, sockets...)
	}
	return all, nil
}

// States of /proc/net/tcp and /proc/net/udp in which a socket takes what comes from anybody.
var listening = map[string]string{"tcp": "0A", "udp": "07"}

func parseSockets(table, network string) ([]socket, error) {
	var sockets []socket
	for _, line := range strings.Split(table, "\n")[1:] {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[3] != listening[network] {
			continue
		}
		address, err := parseHexAddress(fields[1])
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, socket{address: address, inode: fields[9]})
	}
	return sockets, nil
}

// parseHexAddress reads 0100007F:1F90: words of four bytes in the machine's (little-endian) order, then the port.
func parseHexAddress(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", s, err)
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	address, ok := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q is not HOST:PORT in hexadecimal", s)
	}
	return netip.AddrPortFrom(address, uint16(number)), nil
}

// owner finds the process that holds the socket with this inode.
func owner(inode string) (pid int, command string) {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") //nolint:errcheck // the pattern is well-formed
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err == nil {
			return pid, process.CommandLine(pid)
		}
	}
	return 0, ""
}
