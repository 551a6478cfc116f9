package door

import (
	"bytes"
	"strings"

	"github.com/valyala/fasthttp"
)

// head is what the header block of a request says to the door, read in one pass
// over its raw bytes. Its slices point into the request.
type head struct {
	authorization []byte
	key           []byte // Idempotency-Key
	replay        bool   // Idempotency-Replay: 1
}

// read reads the head of a request and tells whether every proxy on the way here
// must have seen the same request in it (RFC 9112). fasthttp v1.74 is more
// patient: it joins folded lines, takes bare line feeds, spaces inside of names,
// Transfer-Encoding beside Content-Length, absolute URIs, user@host and HTTP/9.9. Two
// readers that differ on one of these can be made to see two requests where the
// other sees one.
func (h *head) read(r *fasthttp.RequestHeader) bool {
	*h = head{}
	if !isTarget(r.RequestURI()) {
		return false
	}
	if v := r.Protocol(); string(v) != "HTTP/1.1" && string(v) != "HTTP/1.0" {
		return false
	}
	return h.readBlock(r.RawHeaders())
}

// readBlock reads all lines of a header block, the empty one that ends it
// included.
func (h *head) readBlock(b []byte) bool {
	var length, host bool
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 1 || bytes.IndexByte(b, '\r') != end-1 {
			return false // a bare line feed, or a bare carriage return
		}
		line := b[:end-1]
		b = b[end+1:]
		if len(line) == 0 {
			return len(b) == 0
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !isToken(line[:colon]) {
			return false // folded, nameless, or a space before the colon
		}
		if !h.field(line[:colon], trimOWS(line[colon+1:]), &length, &host) {
			return false
		}
	}
	return true
}

// field reads one field. length and host say which were there before.
func (h *head) field(name, value []byte, length, host *bool) bool {
	switch len(name) {
	case len("host"):
		if isName(name, "host") {
			twice := *host
			*host = true
			return !twice && isHost(value)
		}
	case len("authorization"):
		if isName(name, "authorization") {
			twice := h.authorization != nil
			h.authorization = value
			return !twice
		}
	case len("content-length"):
		if isName(name, "content-length") {
			twice := *length
			*length = true
			return !twice && isLength(value)
		}
	case len("idempotency-key"):
		if isName(name, "idempotency-key") {
			twice := h.key != nil
			h.key = value
			return !twice
		}
	case len("transfer-encoding"):
		// No route of ours needs one, so there is nothing to get wrong.
		return !isName(name, "transfer-encoding")
	case len("idempotency-replay"):
		if isName(name, "idempotency-replay") {
			h.replay = len(value) == 1 && value[0] == '1'
		}
	}
	return true
}

// maxLengthDigits bounds a Content-Length far above any body the server reads.
const maxLengthDigits = 10

func isLength(v []byte) bool {
	if len(v) == 0 || len(v) > maxLengthDigits || (v[0] == '0' && len(v) > 1) {
		return false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// isTarget tells whether a request target is a path, and a query perhaps. It is not
// in absolute, authority or asterisk form; not "//host/path", which fasthttp takes
// for one of them; it has no fragment, and no byte that a URI may not have (RFC 3986).
func isTarget(uri []byte) bool {
	if len(uri) == 0 || uri[0] != '/' || (len(uri) > 1 && uri[1] == '/') {
		return false
	}
	for _, c := range uri {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// isHost tells whether a Host field is one host with a port perhaps: no list, no
// path, and no user before it.
func isHost(v []byte) bool {
	for _, c := range v {
		if !hostByte[c] {
			return false
		}
	}
	return len(v) > 0
}

const letters = "abcdefghijklmnopqrstuvwxyz"

var hostByte = bytesOf("-._~!$&'()*+;=%:[]0123456789" + letters + strings.ToUpper(letters))

// isName compares a token with a name in lower case.
func isName(token []byte, lower string) bool {
	for i := range len(lower) {
		if token[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

var tokenByte = bytesOf("!#$%&'*+-.^_`|~0123456789" + letters + strings.ToUpper(letters))

func bytesOf(all string) (t [256]bool) {
	for _, c := range []byte(all) {
		t[c] = true
	}
	return t
}

// isToken tells whether b is made of RFC 9110 tchar only.
func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte[c] {
			return false
		}
	}
	return true
}

func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
