package queue

import (
	"bytes"
	"context"
)

// A marker is the one message that is not an envelope: recovery sends it behind
// what was published before a rebuild, and learns from its arrival at a worker
// that those were received. Its bytes are "1M|" and a nonce.
const markerHead = "1M|"

// PublishMarker sends a marker to the ingest queue of that number.
func (p *Publisher) PublishMarker(ctx context.Context, queue int, nonce string) error {
	return p.PublishTo(ctx, queue, []byte(markerHead+nonce))
}

// MarkerNonce returns the nonce of a marker, or false if the body is none.
func MarkerNonce(body []byte) (nonce string, ok bool) {
	rest, ok := bytes.CutPrefix(body, []byte(markerHead))
	return string(rest), ok
}
