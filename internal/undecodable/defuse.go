package undecodable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/quantity"
)

// WrapTransport has every decoder of a client refuse at once the quantities that it would otherwise compute on for hours. An
// older CRD let them in. It is for rest.Config.Wrap, and changes nothing but answers about our kinds. A watch is not answered as
// a whole; the decoder of Informers looks at each of its events.
func WrapTransport(next http.RoundTripper) http.RoundTripper { return defuser{next} }

type defuser struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (d defuser) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := d.RoundTripper.RoundTrip(request)
	if err != nil || !strings.HasPrefix(request.URL.Path, "/apis/"+doryv1alpha1.GroupVersion.Group+"/") || watches(request) {
		return response, err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading an answer of the API server: %w", err)
	}
	body = defuse(body)
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	response.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return response, nil
}

// watches says whether the request asks for a watch, which takes every spelling of true.
func watches(request *http.Request) bool {
	watch := request.URL.Query()["watch"]
	return len(watch) > 0 && watch[0] != "false" && watch[0] != "0"
}

// defuse makes the quantities of an object or a list of ours harmless.
func defuse(raw []byte) []byte {
	if !quantity.Suspicious(raw) {
		return raw
	}
	var head metav1.TypeMeta
	if json.Unmarshal(raw, &head) != nil {
		return raw // The decoder says what is wrong with it.
	}
	for _, o := range Kinds() {
		switch into := reflect.TypeOf(o); head.Kind {
		case KindOf(o):
			return quantity.Defuse(raw, into)
		case KindOf(o) + "List":
			return quantity.Defuse(raw, reflect.StructOf([]reflect.StructField{{Name: "Items", Type: reflect.SliceOf(into), Tag: `json:"items"`}}))
		}
	}
	return raw
}
