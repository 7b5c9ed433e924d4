package main

import (
	"errors"
	"testing"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestEventsOfEndingNamespacesAreNoNews(t *testing.T) {
	core, seen := observer.New(zapcore.InfoLevel)
	logger := zapr.NewLogger(zap.New(quiet{core})).WithName("events").WithValues("namespace", "n")
	ending := apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, "a", errors.New("namespace n is being terminated"))
	ending.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	logger.Error(ending, eventRefused)
	logger.Error(ending, "something else")
	logger.Error(errors.New("event is too long"), eventRefused)
	logger.V(1).Info("below the level")
	var messages []string
	for _, entry := range seen.All() {
		messages = append(messages, entry.Message)
	}
	if len(messages) != 2 || messages[0] != "something else" || messages[1] != eventRefused {
		t.Errorf("%q", messages)
	}
}

func TestStackTracesAreForThoseWhoDebug(t *testing.T) {
	for level, want := range map[zapcore.Level]bool{zapcore.InfoLevel: false, zapcore.DebugLevel: true} {
		logger, err := newZap(level)
		if err != nil {
			t.Fatal(err)
		}
		if checked := logger.Check(zapcore.ErrorLevel, "x"); checked == nil || (checked.Stack != "") != want {
			t.Errorf("at %s: %+v", level, checked)
		}
	}
}
