package dbsync

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/store"
)

const (
	// serviceAccountName and terminationGraceSeconds are the API's own defaults. They are rendered, like every
	// other field that has a default, so that a rendered object and the stored one compare as equal.
	serviceAccountName      = "dory-processor"
	terminationGraceSeconds = 35

	// maxImageLength and maxIDLength are the API's bounds, in characters.
	maxImageLength = 1024

	// maxObjectBytes leaves etcd's limit of 1.5 MiB room for the status and for the bookkeeping of fields.
	maxObjectBytes = 1 << 20
	// escapedGrowth is how much longer a string may get by being written as JSON: \u0001.
	escapedGrowth = 6
	// maxWarningsLength bounds the annotation, in bytes.
	maxWarningsLength = 4096
)

// Render makes the Processor of a database row, complete with every default, and says what of its template was
// ignored. An error is about the row and says what to change in it. Two calls with the same row give equal results.
func Render(row store.ProcessorRow) (*doryv1alpha1.Processor, []string, error) {
	return newRenderer().processor(row)
}

// renderer remembers the templates of one listing, in which rows with the same version share one. What it
// renders shares memory too, and is for reading only.
type renderer struct {
	templates map[string]*template
}

func newRenderer() *renderer { return &renderer{templates: map[string]*template{}} }

func (r *renderer) processor(row store.ProcessorRow) (*doryv1alpha1.Processor, []string, error) {
	if err := checkJoined(row); err != nil {
		return nil, nil, err
	}
	template := r.template(row)
	image, imageErr := imageOf(row)
	location, placement, placementErr := placementOf(row)
	if err := errors.Join(template.err, imageErr, placementErr); err != nil {
		return nil, nil, flatten(err)
	}
	p := &doryv1alpha1.Processor{ObjectMeta: rowMeta(row, template.warnings), Spec: template.spec}
	p.Spec.ProcessorID = row.ID
	p.Spec.Image = image
	p.Spec.Env = withSensor(template.spec.Env, row.Sensor)
	p.Spec.Location = location
	p.Spec.Placement = placement
	p.Spec.Suspend = new(row.Status == store.StatusSuspended)
	p.Spec.ServiceAccountName = serviceAccountName
	p.Spec.TerminationGracePeriodSeconds = terminationGraceSeconds
	if err := checkSize(p); err != nil {
		return nil, nil, err
	}
	return p, template.warnings, nil
}

// template reads the row's template once for each version.
func (r *renderer) template(row store.ProcessorRow) *template {
	if known, ok := r.templates[row.VersionID]; ok {
		return known
	}
	t := readTemplate(row)
	r.templates[row.VersionID] = t
	return t
}

// checkJoined refuses a row of whose parts one is missing.
func checkJoined(row store.ProcessorRow) error {
	switch {
	case row.TemplateSlug == "" && row.VersionID == "":
		return fmt.Errorf("processor_template_id %q names no template: set it to the id of a row of processor_templates", row.TemplateID)
	case row.VersionID == "":
		return fmt.Errorf("template %q has no active version: set is_active = true on one of its rows in processor_template_versions", row.TemplateSlug)
	case row.SensorID != "" && row.Sensor == nil:
		return fmt.Errorf("sensor_id %q names no sensor: set it to the id of a row of sensors, or to NULL", row.SensorID)
	}
	return nil
}

func rowMeta(row store.ProcessorRow, warnings []string) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{
		Name:      doryv1alpha1.ObjectName(row.ID),
		Namespace: row.Namespace,
		Labels:    map[string]string{doryv1alpha1.LabelSource: doryv1alpha1.SourceDatabase},
		Annotations: map[string]string{
			doryv1alpha1.AnnotationProcessorID: row.ID,
			doryv1alpha1.AnnotationRowRevision: strconv.FormatInt(row.Revision, 10),
		},
	}
	if len(warnings) > 0 {
		meta.Annotations[doryv1alpha1.AnnotationTemplateWarnings] = message.Shorten(strings.Join(warnings, "; "), maxWarningsLength)
	}
	return meta
}

// imageOf pins the image to the version's digest, if it has one. A tag stays, for people: runtimes go by the
// digest where a reference has both.
func imageOf(row store.ProcessorRow) (string, error) {
	image := row.ImageURI
	if image == "" {
		return "", errors.New("image_uri is empty: set it to the image of the processor, such as registry.example/app:1.0")
	}
	if strings.ContainsFunc(image, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return "", fmt.Errorf("image_uri is %q, with a space or control character in it: remove that", shorten(image))
	}
	if _, pinned, ok := strings.Cut(image, "@"); ok {
		if row.Digest != "" && row.Digest != pinned {
			return "", fmt.Errorf("image_uri names the digest %q and the column digest says %q: make them the same, or clear one", pinned, row.Digest)
		}
	} else if row.Digest != "" {
		image += "@" + row.Digest
	}
	if n := len([]rune(image)); n > maxImageLength {
		return "", fmt.Errorf("image_uri %q is %d characters long with its digest, and the limit is %d: use a shorter name", shorten(image), n, maxImageLength)
	}
	if !doryv1alpha1.IsImage(image) {
		return "", fmt.Errorf("image_uri is %q with its digest, which no kubelet takes: set it to a reference such as registry.example/app:1.0, without capitals but in the registry and the tag, and digest to sha256: and 64 hexadecimal digits, or to NULL", shorten(image))
	}
	return image, nil
}

// checkSize refuses what the API server would answer with a bare "request is too large". Only an object that
// could be too large is written out to be measured.
func checkSize(p *doryv1alpha1.Processor) error {
	if roughSize(p)*escapedGrowth <= maxObjectBytes {
		return nil
	}
	encoded, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("rendering as JSON: %w", err)
	}
	if len(encoded) <= maxObjectBytes {
		return nil
	}
	name, size := largestEnv(p)
	return fmt.Errorf("the Processor is %d bytes large, and the limit is %d: make the template or the sensor's config smaller; the largest environment variable is %s with %d bytes",
		len(encoded), maxObjectBytes, cmp.Or(name, "(none)"), size)
}

// roughSize is the length of all strings that a row can make long.
func roughSize(p *doryv1alpha1.Processor) int {
	const frame = 2048 // everything else
	size := frame
	for i := range p.Spec.Env {
		size += len(p.Spec.Env[i].Name) + len(p.Spec.Env[i].Value) + 4
	}
	for _, list := range [][]string{p.Spec.Command, p.Spec.Args} {
		for _, s := range list {
			size += len(s) + 1
		}
	}
	return size
}

func largestEnv(p *doryv1alpha1.Processor) (name string, size int) {
	for i := range p.Spec.Env {
		if n := len(p.Spec.Env[i].Value); n > size {
			name, size = p.Spec.Env[i].Name, n
		}
	}
	return name, size
}

// flatten makes one line of joined errors, for a column and a condition.
func flatten(err error) error {
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}
