package loadtest

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/doorbuster/doorbuster/engine"
)

// Basket is what every buyer of a run asks for.
type Basket struct {
	Lines []engine.Line // prices count in the total only
	Total engine.Money
}

// Single returns a basket of one line.
func Single(sku engine.SKU, quantity, priceMinor int64, currency string) Basket {
	return Basket{
		Lines: []engine.Line{{SKU: sku, Quantity: quantity, Price: priceMinor}},
		Total: engine.Money{Amount: quantity * priceMinor, Currency: currency},
	}
}

// validate tells why nobody could ask for the basket, or nil.
func (b *Basket) validate() error {
	if len(b.Lines) == 0 || len(b.Lines) > engine.MaxLines {
		return fmt.Errorf("basket has %d lines, want 1 to %d", len(b.Lines), engine.MaxLines)
	}
	return engine.ValidateCurrency(b.Total.Currency)
}

// JSON returns the request body.
func (b *Basket) JSON() []byte {
	dst := []byte(`{"lines":[`)
	for i := range b.Lines {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"sku":"`...)
		dst = append(dst, b.Lines[i].SKU...)
		dst = append(dst, `","quantity":`...)
		dst = strconv.AppendInt(dst, b.Lines[i].Quantity, 10)
		dst = append(dst, '}')
	}
	dst = append(dst, `],"total":{"amount":`...)
	dst = strconv.AppendInt(dst, b.Total.Amount, 10)
	dst = append(dst, `,"currency":"`...)
	dst = append(dst, b.Total.Currency...)
	return append(dst, `"}}`...)
}

// hash is what the engine hashes of the request.
func (b *Basket) hash() uint64 { return engine.BodyHash(b.Lines, b.Total.Amount, b.Total.Currency) }

// form holds the bytes of POST /v1/sales/{id}/orders that are the same for
// every buyer of a run.
type form struct{ head, tail, body []byte }

func newForm(host string, sale engine.SaleID, b *Basket) form {
	body := b.JSON()
	head := "POST /v1/sales/" + string(sale) + "/orders HTTP/1.1\r\nHost: " + host +
		"\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nAuthorization: Ticket "
	return form{head: []byte(head), tail: []byte("\r\nIdempotency-Key: "), body: body}
}

// append appends one buyer's request.
func (f *form) append(dst []byte, token string, key []byte, replay bool) []byte {
	dst = append(dst, f.head...)
	dst = append(dst, token...)
	dst = append(dst, f.tail...)
	dst = append(dst, key...)
	if replay {
		dst = append(dst, "\r\nIdempotency-Replay: 1"...)
	}
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, f.body...)
}

var errNoURL = errors.New("no base URL given")

// hosts reads base URLs ("http://127.0.0.1:8080") into the addresses to dial.
func hosts(baseURLs []string) ([]string, error) {
	if len(baseURLs) == 0 {
		return nil, errNoURL
	}
	out := make([]string, len(baseURLs))
	for i, s := range baseURLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" || u.Host == "" || (u.Path != "" && u.Path != "/") {
			return nil, fmt.Errorf("base URL %q: want http://host:port", s)
		}
		out[i] = u.Host
		if u.Port() == "" {
			out[i] += ":80"
		}
	}
	return out, nil
}
