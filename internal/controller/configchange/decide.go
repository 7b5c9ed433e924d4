package configchange

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// sight is what was seen of one referenced object.
type sight struct {
	pod.Reference
	// hash of the content; empty if there is no such object.
	hash string
	// lacks are keys that it must have and has not.
	lacks []string
	// unwatched says that the operator may not look.
	unwatched bool
}

// absent: the pod would not start.
func (s sight) absent() bool {
	return !s.unwatched && ((s.hash == "" && !s.Optional) || len(s.lacks) > 0)
}

// outcome is what to write, and which objects changed.
type outcome struct {
	config  *doryv1alpha1.ProcessorConfig
	changed []string
}

// decide compares what is seen with what was. An object that is new to the list, or that is gone, changes nothing; and
// nothing changes at all while one is missing that the next instance needs.
func decide(last *doryv1alpha1.ProcessorConfig, seen []sight, total int) outcome {
	if len(seen) == 0 {
		return outcome{}
	}
	next := &doryv1alpha1.ProcessorConfig{}
	if last != nil {
		next.Revision = last.Revision
	}
	missing := slices.ContainsFunc(seen, sight.absent)
	var changed []string
	for _, s := range seen {
		had := find(last, s)
		object := doryv1alpha1.ConfigObject{Kind: s.Kind, Name: s.Name, Hash: s.hash}
		switch {
		case had == nil && (s.absent() || s.unwatched):
			continue
		case had != nil && (missing || s.unwatched || s.hash == ""):
			object.Hash = had.Hash
		case had != nil && had.Hash != s.hash:
			changed = append(changed, string(s.Kind)+" "+s.Name)
		}
		next.Objects = append(next.Objects, object)
	}
	if len(changed) > 0 {
		next.Revision = revision(next.Objects)
	}
	next.Message = message(seen, total)
	return outcome{next, changed}
}

func find(config *doryv1alpha1.ProcessorConfig, s sight) *doryv1alpha1.ConfigObject {
	if config == nil {
		return nil
	}
	i := slices.IndexFunc(config.Objects, func(o doryv1alpha1.ConfigObject) bool { return o.Kind == s.Kind && o.Name == s.Name })
	if i < 0 {
		return nil
	}
	return &config.Objects[i]
}

func revision(objects []doryv1alpha1.ConfigObject) string {
	sum := sha256.New()
	for _, o := range objects {
		sum.Write(fmt.Appendf(nil, "%s %s %s\n", o.Kind, o.Name, o.Hash)) // A hash takes all.
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// message says what is in the way, the first of each kind by name.
func message(seen []sight, total int) string {
	var parts []string
	if i := slices.IndexFunc(seen, sight.absent); i >= 0 {
		what := "is missing"
		if lacks := seen[i].lacks; len(lacks) > 0 {
			what = fmt.Sprintf("has no key %q", lacks[0])
		}
		parts = append(parts, fmt.Sprintf("%s %s %s, and an instance needs it: no change restarts until it is there", seen[i].Kind, seen[i].Name, what))
	}
	if i := slices.IndexFunc(seen, func(s sight) bool { return s.unwatched }); i >= 0 {
		parts = append(parts, fmt.Sprintf("the operator may not watch %s %s: bind ClusterRole %s to it in this namespace, or restart by spec.restartedAt",
			seen[i].Kind, seen[i].Name, roleFor(seen[i].Kind)))
	}
	if total > len(seen) {
		parts = append(parts, fmt.Sprintf("the pod refers to %d ConfigMaps and Secrets, of which the first %d are watched", total, len(seen)))
	}
	return strings.Join(parts, "; ")
}

func roleFor(kind doryv1alpha1.ConfigKind) string {
	if kind == doryv1alpha1.ConfigKindSecret {
		return watcherRole
	}
	return configRole
}
