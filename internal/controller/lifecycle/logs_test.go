package lifecycle

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestUsersMistake(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	quota := fmt.Errorf("creating pod: %w", apierrors.NewForbidden(pods, "a", errors.New("exceeded quota")))
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "a", nil)
	broken := errors.New("connection refused")
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"a quota":                    {quota, true},
		"an invalid pod":             {errors.Join(nil, invalid), true},
		"two of them":                {errors.Join(quota, errors.Join(invalid)), true},
		"the network":                {broken, false},
		"a quota and the network":    {errors.Join(quota, broken), false},
		"a server that is too busy":  {apierrors.NewTooManyRequests("later", 1), false},
		"a server that has a defect": {fmt.Errorf("x: %w", apierrors.NewInternalError(broken)), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := usersMistake(test.err); got != test.want {
				t.Errorf("%v", got)
			}
		})
	}
}
