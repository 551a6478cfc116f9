package audit_test

import (
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/audit"
)

// BenchmarkAtRest audits a sale of 100,000 orders against a log of 1,000,000
// answers. Redis knows nothing of it, so laws break: it is the time that counts.
func BenchmarkAtRest(b *testing.B) {
	const buyers, requests = 100_000, 1_000_000
	w := setup(b)
	w.sql(`INSERT INTO orders (sale_no, state, hold_epoch, hold_seq, body, total, limit_buyer, limit_identity, accepted_at,
		finished_at, id, buyer, identities, lines) SELECT s.no, 3, 1, n, 1, 1500, 1, 1, now(), now(), 'o' || n, 'buyer-' || n,
		lpad(to_hex(n), 16, '0'), 'MUG*1*1500' FROM sales s, generate_series(1, 100000) AS n`,
		`INSERT INTO moves (sale_no, op, n, orders) SELECT sale_no, 0, 1, ARRAY[id] FROM orders`,
		`INSERT INTO counters SELECT sale_no, 1, 1, 'b:' || buyer FROM orders`, `ANALYZE orders`)
	feed := func(to *io.PipeWriter) {
		l := audit.NewLogWriter(to)
		a := audit.Answer{At: time.Now(), Key: "key", Lines: mugs(1), Total: price, Status: 409, Type: "sold-out"}
		for i := range requests {
			a.Buyer = engine.BuyerID("buyer-" + strconv.Itoa(i%buyers))
			_ = l.Write(&a)
		}
		_ = l.Flush()
		_ = to.Close()
	}
	for b.Loop() {
		log, to := io.Pipe()
		go feed(to)
		r, err := w.auditor.AtRest(b.Context(), w.sale.ID, log)
		w.ok(err)
		if *r.Requests != requests {
			b.Fatalf("%d requests", *r.Requests)
		}
	}
}
