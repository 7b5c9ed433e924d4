package pod

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Origin is what a pod was made from, so that another one of the same version can be made when the Processor's spec is
// already another one.
type Origin struct {
	// Revision is that of the pod.
	Revision string
	// Content is the spec, as the pod's annotation holds it, and Seal the operator's proof that it is its own word.
	Content, Seal string

	spec     doryv1alpha1.ProcessorSpec
	edgeNode string
}

// origin is the content: what of a Processor decides how its pods look.
type origin struct {
	Spec     *doryv1alpha1.ProcessorSpec `json:"spec"`
	EdgeNode string                      `json:"edgeNode,omitempty"`
}

const (
	// plainContent is how much of the spec stays readable in the annotation. What is longer is compressed.
	plainContent = 16 << 10
	// annotationRoom is what a pod's annotations may take together. The API server's limit is 256 KiB, and others add theirs.
	annotationRoom = 224 << 10
	// compressed starts content that no person can read.
	compressed = "gzip:"
)

// NewOrigin is what a pod of the present spec is made from; nil where it cannot be sealed.
func NewOrigin(p *doryv1alpha1.Processor, edgeNode string, tokens Tokens) *Origin {
	if !tokens.sealing() {
		return nil
	}
	spec := p.Spec.DeepCopy()
	spec.Suspend, spec.State, spec.Update, spec.Migration, spec.RestartedAt = nil, nil, nil, nil, "" // The present ones apply to every version.
	encoded, err := json.Marshal(origin{spec, edgeNode})
	if err != nil {
		return nil
	}
	made := &Origin{Revision: Revision(p, edgeNode), Content: string(encoded), spec: *spec, edgeNode: edgeNode}
	if len(encoded) > plainContent {
		if made.Content, err = compress(encoded); err != nil {
			return nil
		}
	}
	made.Seal = tokens.seal(p, made.Revision, made.Content)
	return made
}

// ReadOrigin is what the content says, or nil where that is not the operator's own word about this Processor: who may
// write annotations must not get pods made by that.
func ReadOrigin(p *doryv1alpha1.Processor, tokens Tokens, revision, content, seal string) *Origin {
	if !tokens.sealing() || content == "" || !hmac.Equal([]byte(seal), []byte(tokens.seal(p, revision, content))) {
		return nil
	}
	encoded := []byte(content)
	if packed, isPacked := strings.CutPrefix(content, compressed); isPacked {
		var err error
		if encoded, err = decompress(packed); err != nil {
			return nil
		}
	}
	var said origin
	if err := json.Unmarshal(encoded, &said); err != nil || said.Spec == nil {
		return nil
	}
	return &Origin{Revision: revision, Content: content, Seal: seal, spec: *said.Spec, edgeNode: said.EdgeNode}
}

// OriginOf is what the pod was made from; nil where it does not say so, as pods of older operators and slimmed ones of a
// cache do not.
func OriginOf(p *corev1.Pod, of *doryv1alpha1.Processor, tokens Tokens) *Origin {
	if p == nil || of == nil {
		return nil
	}
	return ReadOrigin(of, tokens, RevisionOf(p), p.Annotations[doryv1alpha1.AnnotationSpec], p.Annotations[doryv1alpha1.AnnotationSeal])
}

// RevisionOf is the revision that the pod was made from; empty where it was not made by an operator.
func RevisionOf(p *corev1.Pod) string {
	if p == nil {
		return ""
	}
	return p.Annotations[doryv1alpha1.AnnotationRevision]
}

// Processor is the Processor as it was when the pod was made. How it is looked after is what its spec says now.
func (o *Origin) Processor(now *doryv1alpha1.Processor) *doryv1alpha1.Processor {
	was := now.DeepCopy()
	o.spec.DeepCopyInto(&was.Spec)
	was.Spec.Suspend, was.Spec.State, was.Spec.Update, was.Spec.Migration = now.Spec.Suspend, now.Spec.State, now.Spec.Update, now.Spec.Migration
	was.Spec.RestartedAt = now.Spec.RestartedAt
	return was
}

// ProcessorOr is the same, or the Processor itself where there is no origin.
func (o *Origin) ProcessorOr(now *doryv1alpha1.Processor) *doryv1alpha1.Processor {
	if o == nil {
		return now
	}
	return o.Processor(now)
}

// from lets a pod be made from its origin, if it has one.
func (in Input) from() Input {
	if in.Origin != nil {
		in.Processor, in.EdgeNode = in.Origin.Processor(in.Processor), in.Origin.edgeNode
	}
	return in
}

// stampOrigin writes into the pod what it is made from, where there is room for that.
func stampOrigin(pod *corev1.Pod, in Input) {
	pod.Annotations[doryv1alpha1.AnnotationRevision] = Revision(in.Processor, in.EdgeNode)
	delete(pod.Annotations, doryv1alpha1.AnnotationSpec)
	delete(pod.Annotations, doryv1alpha1.AnnotationSeal)
	made := in.Origin
	if made == nil {
		made = NewOrigin(in.Processor, in.EdgeNode, in.Tokens)
	}
	StampOrigin(pod, made)
}

// StampOrigin writes into the pod what it counts as made from.
func StampOrigin(pod *corev1.Pod, made *Origin) {
	if made == nil {
		return
	}
	pod.Annotations = with(pod.Annotations, map[string]string{doryv1alpha1.AnnotationRevision: made.Revision})
	taken := len(doryv1alpha1.AnnotationSpec) + len(made.Content) + len(doryv1alpha1.AnnotationSeal) + len(made.Seal)
	for key, value := range pod.Annotations {
		taken += len(key) + len(value)
	}
	if taken > annotationRoom {
		return
	}
	pod.Annotations[doryv1alpha1.AnnotationSpec], pod.Annotations[doryv1alpha1.AnnotationSeal] = made.Content, made.Seal
}

func compress(encoded []byte) (string, error) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(encoded); err != nil {
		return "", fmt.Errorf("compressing a spec: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("compressing a spec: %w", err)
	}
	return compressed + base64.StdEncoding.EncodeToString(packed.Bytes()), nil
}

// decompress reads only what bears our seal, so that its size is our own doing.
func decompress(packed string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(packed)
	if err != nil {
		return nil, fmt.Errorf("decoding a spec: %w", err)
	}
	r, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading a spec: %w", err)
	}
	return io.ReadAll(r)
}
