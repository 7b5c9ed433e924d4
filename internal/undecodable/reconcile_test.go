package undecodable

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

func TestLeaveAside(t *testing.T) {
	failure := errors.New("no connection")
	for name, test := range map[string]struct {
		err, want error
		again     bool
	}{
		"all is well": {},
		"a failure":   {failure, failure, false},
		"an object that cannot be decoded": {
			fmt.Errorf("reading: %w", errors.Join(failure, &Error{&doryv1alpha1.Processor{}, "why"})), nil, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := LeaveAside(reconcile.Func(func(context.Context, ctrl.Request) (ctrl.Result, error) { return ctrl.Result{}, test.err }))
			result, err := r.Reconcile(t.Context(), ctrl.Request{})
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || (result.RequeueAfter > 0) != test.again {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
}

// readsNone are the controllers that read no object of ours, or only to tell about it.
var readsNone = map[string]string{
	"controller/leftaside/controller.go": "tells about what is left aside",
	"controller/databasesecret/setup.go": "reads a Secret and a Deployment",
	"webhook/setup.go":                   "reads a Secret and a webhook's configuration",
}

// A controller that is forgotten would report the same error for ever.
func TestEveryControllerLeavesAside(t *testing.T) {
	found := 0
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			reconciler := reconcilerIn(n)
			if reconciler == nil {
				return true
			}
			found++
			call, ok := reconciler.(*ast.CallExpr)
			if ok {
				if f, yes := call.Fun.(*ast.SelectorExpr); yes && f.Sel.Name == "LeaveAside" {
					return true
				}
			}
			if readsNone[strings.TrimPrefix(filepath.ToSlash(path), "../")] == "" {
				t.Errorf("%s: wrap the reconciler in undecodable.LeaveAside, or say in readsNone why it needs none", files.Position(n.Pos()))
			}
			return true
		})
		return nil
	})
	if err != nil || found < 10 {
		t.Errorf("%d controllers were found: %v", found, err)
	}
}

// reconcilerIn is what a node makes a controller of: builder.Complete(r), builder.Build(r), or controller.Options{Reconciler: r}.
func reconcilerIn(n ast.Node) ast.Expr {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && len(n.Args) == 1 && (f.Sel.Name == "Complete" || f.Sel.Name == "Build") {
			if x, ok := f.X.(*ast.Ident); !ok || x.Name != "pod" { // pod.Build makes a pod.
				return n.Args[0]
			}
		}
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Reconciler" {
			return n.Value
		}
	}
	return nil
}
