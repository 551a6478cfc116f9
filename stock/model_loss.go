package stock

import (
	"maps"

	"github.com/doorbuster/doorbuster/engine"
)

// Picture is all that a model's Redis has on disk at one moment: every key, and no
// script.
type Picture struct {
	sales map[engine.SaleID]*modelSale
}

// Picture returns a copy of what there is.
func (m *Model) Picture() Picture {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Picture{copySales(m.sales)}
}

// modelServer is one Redis process: keys are replicated, scripts are its own.
type modelServer struct {
	run    int              // names it
	loaded map[string]int64 // SHA → incarnation
}

// FlushScripts is SCRIPT FLUSH: the server goes on without its scripts.
func (m *Model) FlushScripts() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.loaded)
}

// Renew puts a new process in the place of the one that would be promoted: it has
// never been given a script.
func (m *Model) Renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starts++
	m.standby = modelServer{run: m.starts, loaded: map[string]int64{}}
}

// Promote hands over to the other server, which has the keys as they were in the
// picture, and what scripts it was given when it last served. The old one becomes its
// replica, and may be handed back to.
func (m *Model) Promote(p Picture) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handed++
	m.modelServer, m.standby = m.standby, m.modelServer
	m.sales = copySales(p.sales)
}

// Count is what an epoch's keys count of one buyer.
func (m *Model) Count(sale engine.SaleID, epoch int64, buyer engine.BuyerID) Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.at(sale, epoch); e != nil {
		return e.buyers[buyer]
	}
	return Counter{}
}

// EachItem looks at the items of the epoch in use, in no order. It must not change them.
func (m *Model) EachItem(sale engine.SaleID, look func(it *Item)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sales[sale]; s != nil && s.epochs[s.inUse] != nil {
		for _, it := range s.epochs[s.inUse].items {
			look(it)
		}
	}
}

// Counts is what an epoch's keys count of every buyer. The caller must not change it.
func (m *Model) Counts(sale engine.SaleID, epoch int64) map[engine.BuyerID]Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.at(sale, epoch); e != nil {
		return e.buyers
	}
	return nil
}

// Shared is what they count of one identity, in units.
func (m *Model) Shared(sale engine.SaleID, epoch int64, id engine.Identity) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.at(sale, epoch); e != nil {
		return e.identities[id]
	}
	return 0
}

// InUse is the epoch of a sale that a Watch shows, or 0.
func (m *Model) InUse(sale engine.SaleID) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sales[sale]; s != nil && s.epochs[s.inUse] != nil {
		return s.inUse
	}
	return 0
}

// Holds tells whether an epoch of the sale has a record of the order.
func (m *Model) Holds(sale engine.SaleID, id engine.OrderID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sales[sale]
	if s == nil {
		return false
	}
	for _, e := range s.epochs {
		if e.records[id] != nil {
			return true
		}
	}
	return false
}

// LoseSince is a restart of Redis that lost every write after the picture was taken.
func (m *Model) LoseSince(p Picture) {
	m.Restart()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sales = copySales(p.sales)
}

func copySales(from map[engine.SaleID]*modelSale) map[engine.SaleID]*modelSale {
	out := make(map[engine.SaleID]*modelSale, len(from))
	for id, s := range from {
		c := &modelSale{inUse: s.inUse, epochs: make(map[int64]*modelEpoch, len(s.epochs))}
		for n, e := range s.epochs {
			c.epochs[n] = e.copied()
		}
		out[id] = c
	}
	return out
}

// copied shares with e what nobody changes: records, and the slices inside of orders.
func (e *modelEpoch) copied() *modelEpoch {
	c := &modelEpoch{
		watch: e.watch, items: make(map[engine.SKU]*Item, len(e.items)), records: maps.Clone(e.records), buyers: maps.Clone(e.buyers),
		identities: maps.Clone(e.identities), outbox: maps.Clone(e.outbox), rows: maps.Clone(e.rows),
	}
	for sku, it := range e.items {
		i := *it
		c.items[sku] = &i
	}
	return c
}
