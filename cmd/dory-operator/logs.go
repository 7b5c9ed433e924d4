package main

import (
	"fmt"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// newZap writes JSON lines. Stack traces are for those who debug: they show the insides of a library's loop, and never more.
func newZap(level zapcore.Level) (*zap.Logger, error) {
	config := zap.NewProductionConfig()
	config.Level = zap.NewAtomicLevelAt(level)
	config.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	config.Sampling = nil
	config.DisableStacktrace = level > zapcore.DebugLevel
	logger, err := config.Build(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return quiet{core} }))
	if err != nil {
		return nil, fmt.Errorf("making the logger: %w", err)
	}
	return logger, nil
}

// quiet leaves out that events of a namespace that is being deleted are refused: no one is left to read them.
type quiet struct{ zapcore.Core }

// eventRefused is how client-go says it.
const eventRefused = "Server rejected event (will not retry!)"

// With implements zapcore.Core.
func (q quiet) With(fields []zapcore.Field) zapcore.Core { return quiet{q.Core.With(fields)} }

// Check implements zapcore.Core.
func (q quiet) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !q.Enabled(entry.Level) {
		return checked
	}
	return checked.AddCore(entry, q)
}

// Write implements zapcore.Core.
func (q quiet) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if entry.Message == eventRefused && ofEndingNamespace(fields) {
		return nil
	}
	return q.Core.Write(entry, fields)
}

func ofEndingNamespace(fields []zapcore.Field) bool {
	for _, field := range fields {
		if err, ok := field.Interface.(error); ok && (apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err)) {
			return true
		}
	}
	return false
}
