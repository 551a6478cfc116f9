package audit

import "github.com/doorbuster/doorbuster/engine"

// law6 holds the provider's book against the orders. It returns how many orders
// hold money more than once, or more than they cost.
func law6(b *books, t *tills) (l Law, double int64) {
	var f findings
	var charged, net int64
	for i := range b.rows {
		r := &b.rows[i]
		p := t.byRow[int32(i)]
		if p == nil {
			p = &purse{}
		}
		if p.charges > 0 {
			charged++
		}
		net += p.net
		if p.holding > 1 || p.most > r.total || p.net+p.open > r.total {
			double++
		}
		judgePurse(r, p, b.sale.Currency, &f)
	}
	for id, p := range t.strangers {
		if p.holding > 0 {
			f.add("order %q is charged, and nobody knows it", id)
		}
	}
	judgeOwn(b, net, &f)
	return f.law(6, "%d charges for %d orders; %d %s taken in all", t.charges, charged, net, b.sale.Currency), double
}

func judgePurse(r *row, p *purse, currency string, f *findings) {
	switch {
	case p.otherMoney != "":
		f.add("order %s is charged in %s, the sale is in %s", r.id, p.otherMoney, currency)
	case p.most > r.total || p.net+p.open > r.total:
		f.add("order %s of %d is charged %d", r.id, r.total, max(p.most, p.net+p.open))
	case r.state == engine.Confirmed && p.charges == 0:
		f.add("order %s is confirmed and not charged", r.id)
	case r.state == engine.Confirmed && p.charges > 1:
		f.add("order %s is confirmed and charged %d times", r.id, p.charges)
	case r.state == engine.Confirmed && p.holding == 0 && !r.returned:
		f.add("order %s is confirmed, and its money went back", r.id)
	case r.state == engine.Cancelled && p.net != 0:
		f.add("order %s is cancelled, and %d were kept", r.id, p.net)
	case r.state == engine.Cancelled && p.open != 0:
		f.add("order %s is cancelled, and %d are still authorised", r.id, p.open)
	}
}

// judgeOwn holds our own ledger against the provider's.
func judgeOwn(b *books, net int64, f *findings) {
	if b.own.unbalanced != 0 {
		f.add("%d of our books do not add up to 0", b.own.unbalanced)
	}
	if b.own.missing != 0 {
		f.add("%d confirmed orders have no charge in our books", b.own.missing)
	}
	if b.own.net != net {
		f.add("our books say that %d %s were taken, the provider says %d", b.own.net, b.sale.Currency, net)
	}
}
