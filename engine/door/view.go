package door

import (
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/stock"
)

// freshFor is how long the door refuses by what it read: twice the pace of the
// watch and some, so that a restock clears a flag within 100 ms and a watch that
// hangs clears it soon after.
const freshFor = int64(150 * time.Millisecond)

// view is what the door knows of a sale since one read of the watch. It never
// changes.
type view struct {
	stock.Watch
	key       *engine.OrderKey
	sent, got int64  // on the door's clock, around the read
	missing   bool   // the slot knows no such sale
	soldOut   uint64 // of Items, by index: those of which none is available
	held      uint64 // those of which some are held
	page      []byte // of GET
}

func newView(w stock.Watch, key *engine.OrderKey, sent, got int64) *view {
	v := &view{Watch: w, key: key, sent: sent, got: got}
	for i := range w.Items {
		if w.Items[i].Available <= 0 {
			v.soldOut |= 1 << uint(i)
		}
		if w.Items[i].Held > 0 {
			v.held |= 1 << uint(i)
		}
	}
	return v
}

// A leap of Redis' clock that is larger than recovery suffers (it pauses the sale at
// a second) ends the lease until recovery can have judged it: three measurements, a
// second apart, and the pause.
const (
	leapMost  = time.Second
	leapDoubt = 5 * time.Second
)

// fresh tells whether the door may refuse by the view.
func (v *view) fresh(now int64) bool { return now-v.sent < freshFor }

// latest and earliest bound what Redis' clock says now, in Unix milliseconds: the
// read was answered somewhere between sent and got.
func (v *view) latest(now int64) int64   { return v.Now + 1 + (now-v.sent)/int64(time.Millisecond) }
func (v *view) earliest(now int64) int64 { return v.Now + (now-v.got)/int64(time.Millisecond) }

// leapt tells whether Redis' clock went on otherwise than the door's own between two
// reads: somebody set it, or another Redis answers now. By it the sale would open or
// close at a wrong time, and orders would bear one.
func (v *view) leapt(next *view) bool {
	most := leapMost.Milliseconds()
	return next.Now < v.earliest(next.sent)-most || next.Now > v.latest(next.got)+most
}

// refusal is what the script would say to every new order, as far as the view can
// know, or unanswered. It is in the script's order.
func (v *view) refusal(now int64) answer {
	switch {
	case v.latest(now) < v.Opens:
		return notOpen
	case v.State == engine.SaleClosed, v.earliest(now) >= v.Closes:
		return saleClosed
	case v.State == engine.SalePaused:
		return salePaused
	}
	return unanswered
}

// sold tells whether one of the items asked for is sold out.
func (v *view) sold(items uint64) answer {
	gone := v.soldOut & items
	switch {
	case gone == 0:
		return unanswered
	case gone&^v.held == 0:
		return soldOutMayReturn
	}
	return soldOut
}

// item finds a SKU; -1 is none.
func (v *view) item(sku []byte) int {
	for i := range v.Items {
		if string(v.Items[i].SKU) == string(sku) {
			return i
		}
	}
	return -1
}

// itemNamed is item for a name that is a string already.
func (v *view) itemNamed(sku engine.SKU) int {
	for i := range v.Items {
		if v.Items[i].SKU == sku {
			return i
		}
	}
	return -1
}
