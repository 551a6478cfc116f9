package door

import "bytes"

const salesPath = "/v1/sales/"

// route splits the path of a request into the sale and what stands behind it:
// "", "/orders" or something that is not the door's. It looks at the bytes as
// they were sent: an escaped or dotted spelling of a route is not that route.
func route(uri []byte) (sale []byte, rest string, ok bool) {
	if len(uri) < len(salesPath) || string(uri[:len(salesPath)]) != salesPath {
		return nil, "", false
	}
	path := uri[len(salesPath):]
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	sale, after := path, []byte(nil)
	if i := bytes.IndexByte(path, '/'); i >= 0 {
		sale, after = path[:i], path[i:]
	}
	switch string(after) {
	case "":
		return sale, "", len(sale) > 0
	case "/orders":
		return sale, "/orders", len(sale) > 0
	}
	return nil, "", false
}
