package statestore

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/dory-io/dory/internal/statexfer"
)

// BenchmarkSave is what a checkpoint costs before it is sent: 2,000 processors with 16 KiB every 30 s make 67 a second.
func BenchmarkSave(b *testing.B) {
	for _, kib := range []int{1, 16, 512} {
		b.Run(fmt.Sprintf("%dKiB", kib), func(b *testing.B) {
			version := 0
			c := interceptor.NewClient(apiServer, interceptor.Funcs{
				Update: func(_ context.Context, _ client.WithWatch, obj client.Object, _ ...client.UpdateOption) error {
					version++
					obj.SetResourceVersion(strconv.Itoa(version))
					return nil
				},
				Create: func(_ context.Context, _ client.WithWatch, obj client.Object, _ ...client.CreateOption) error {
					obj.SetResourceVersion("0")
					return nil
				},
			})
			s := New(Config{Client: c, Reader: c})
			entry := `"session-%06d":{"user":"u-17","score":0.25,"tags":["a","b"],"seen":"2026-11-21T12:00:00Z"},`
			payload := json.RawMessage(`{` + many(entry, kib<<10/len(entry)) + `"end":1}`)
			slot := &Slot{absent: true}
			key := Key{Namespace: "n", Processor: "p", ProcessorID: "p", ConfigMap: "dory-state-p"}
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for i := range b.N {
				d := statexfer.Document{Payload: payload, Metadata: statexfer.Metadata{
					Position: statexfer.Position{Epoch: 1, Sequence: int64(i)}, Time: noon.Add(time.Duration(i) * time.Second), ProcessorID: "p", PodName: "pod",
				}}
				if saved, err := s.Save(b.Context(), SaveRequest{Key: key, Document: d, Slot: slot}); err != nil || !saved.Written {
					b.Fatal(saved, err)
				}
			}
		})
	}
}

func many(entry string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, entry, i)
	}
	return b.String()
}
