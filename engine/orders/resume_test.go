package orders_test

import (
	"pgregory.net/rapid"

	"github.com/doorbuster/doorbuster/engine"
)

// state sets a sale's state, and sometimes resumes it for one who read it before that.
func (m *both) state() {
	sale, to := m.sale(), rapid.SampledFrom([]engine.SaleState{engine.SaleOpen, engine.SalePaused, engine.SaleClosed, engine.SaleSettled}).Draw(m.T, "to")
	if to == engine.SaleSettled && rapid.IntRange(0, 9).Draw(m.T, "settle") > 0 {
		return
	}
	_, seen1, err1 := m.model.Sale(m.ctx, sale)
	_, seen2, err2 := m.b.Sale(m.ctx, sale)
	m.same("sale", err1, err2)
	m.same("state", m.model.SetSaleState(m.ctx, sale, to, note), m.b.SetSaleState(m.ctx, sale, to, note))
	if rapid.IntRange(0, 2).Draw(m.T, "resume as it was") == 0 {
		m.same("resume", m.model.ResumeSale(m.ctx, sale, seen1.Since, note), m.b.ResumeSale(m.ctx, sale, seen2.Since, note))
	}
}
