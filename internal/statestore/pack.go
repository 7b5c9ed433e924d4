package statestore

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/dory-io/dory/internal/statexfer"
)

// packer is for documents that do not fit into a ConfigMap. zstd at its fastest takes half the time of gzip at its
// fastest, and makes a fifth of typical JSON. What it needs is made when the first large state comes.
type packer struct {
	encoder func() (*zstd.Encoder, error)
	decoder func() (*zstd.Decoder, error)
}

func newPacker() packer {
	return packer{
		encoder: sync.OnceValues(func() (*zstd.Encoder, error) {
			return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
		}),
		decoder: sync.OnceValues(func() (*zstd.Decoder, error) {
			return zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(statexfer.MaxDocumentBytes))
		}),
	}
}

// pack compresses an encoded document.
func (p packer) pack(text []byte) ([]byte, error) {
	encoder, err := p.encoder()
	if err != nil {
		return nil, fmt.Errorf("compressing a state document: %w", err)
	}
	return encoder.EncodeAll(text, make([]byte, 0, len(text)/4)), nil
}

// unpack is the way back, and verifies the document's checksum.
func (p packer) unpack(packed []byte) (*statexfer.Document, error) {
	decoder, err := p.decoder()
	if err != nil {
		return nil, fmt.Errorf("decompressing a state document: %w", err)
	}
	text, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, damaged(fmt.Errorf("decompressing a state document of %d bytes: %w", len(packed), err))
	}
	document, err := statexfer.Decode(text)
	if err != nil {
		return nil, damaged(err)
	}
	return &document, nil
}

// The outer parts of an encoded document, as statexfer.Document.Encode writes them.
const (
	beforePayload  = `{"payload": `
	beforeMetadata = `, "metadata": `
	beforeChecksum = `, "checksum": "`
	afterChecksum  = `"}`
)

// sealOf reads checksum and size of the payload off an encoded document. Both would cost another pass over the state to
// compute. No string within the metadata can hold what is looked for, because its quotes would be escaped.
func sealOf(text []byte) (checksum string, size int64, err error) {
	end := bytes.LastIndex(text, []byte(beforeChecksum))
	metadata := bytes.LastIndex(text, []byte(beforeMetadata))
	if end < 0 || metadata < len(beforePayload) || !bytes.HasSuffix(text, []byte(afterChecksum)) {
		return "", 0, fmt.Errorf("%w: an encoded document of %d bytes has no checksum where it should be", statexfer.ErrMalformed, len(text))
	}
	return string(text[end+len(beforeChecksum) : len(text)-len(afterChecksum)]), int64(metadata - len(beforePayload)), nil
}
