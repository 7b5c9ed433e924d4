package host

import (
	"slices"
	"testing"
)

func TestMountsBelow(t *testing.T) {
	mountinfo := `20 1 254:0 / / rw shared:1 - ext4 /dev/vda rw
30 20 254:0 /x /run/dory-cluster/state rw shared:9 - ext4 /dev/vda rw
31 30 0:40 / /run/dory-cluster/state/pods/a\040b rw - tmpfs tmpfs rw
32 20 0:41 / /run/dory-cluster-other rw - tmpfs tmpfs rw
`
	got := mountsBelow(mountinfo, "/run/dory-cluster")
	want := []string{"/run/dory-cluster/state/pods/a b", "/run/dory-cluster/state"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
