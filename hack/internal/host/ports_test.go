package host

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestParseHexAddress(t *testing.T) {
	for in, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"00000000:0035":                         "0.0.0.0:53",
		"00000000000000000000000000000000:192B": "[::]:6443",
		"0000000000000000FFFF00000100530A:192B": "[::ffff:10.83.0.1]:6443",
	} {
		got, err := parseHexAddress(in)
		if err != nil || got.String() != want {
			t.Errorf("%s: %v %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "zz:1", "0100007F", "0100:1F90"} {
		if got, err := parseHexAddress(in); err == nil {
			t.Errorf("%q was read as %s", in, got)
		}
	}
}

func TestHolder(t *testing.T) {
	want := netip.MustParseAddrPort("10.83.0.1:6443")
	for in, taken := range map[string]bool{
		"10.83.0.1:6443": true, "0.0.0.0:6443": true, "[::]:6443": true, "[::ffff:10.83.0.1]:6443": true,
		"127.0.0.1:6443": false, "10.83.0.1:6444": false,
	} {
		_, got := holder(want, []socket{{address: netip.MustParseAddrPort(in)}})
		if got != taken {
			t.Errorf("%s in the way: %v, want %v", in, got, taken)
		}
	}
}

func TestCheckPortsNamesTheHolder(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	address := netip.MustParseAddrPort(listener.Addr().String())
	err = CheckPorts([]Port{{Network: "tcp", Address: address, For: "a test", Flag: "--test-port"}})
	if err == nil {
		t.Fatal("a taken port passed")
	}
	for _, part := range []string{strconv.Itoa(int(address.Port())), "a test", "pid " + strconv.Itoa(os.Getpid()), "--test-port"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	free := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), address.Port())
	if err := CheckPorts([]Port{{Network: "tcp", Address: free}, {Network: "udp", Address: address}}); err != nil {
		t.Errorf("free ports: %v", err)
	}
}
