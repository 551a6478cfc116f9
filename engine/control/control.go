package control

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/doorbuster/doorbuster/engine"
)

var errStub = errors.New("not written yet")

// Note says who does something, and why.
type Note struct{ Who, Why string }

// Config wires a Control.
type Config struct {
	Orders Orders // *orders.Store
	Stock  Stock  // *stock.Store
	Logger *slog.Logger
	Now    func() time.Time
}

// Orders is what it asks of engine/orders.
type Orders interface{}

// Stock is what it asks of stock.
type Stock interface{}

// Control acts on sales.
type Control struct{}

// New returns a Control.
func New(Config) *Control { return &Control{} }

// Create writes a sale to PostgreSQL; recovery loads it into Redis.
func (c *Control) Create(ctx context.Context, sale engine.Sale, note Note) error { return errStub }

// Show returns a sale and how it stands in Redis.
func (c *Control) Show(ctx context.Context, sale engine.SaleID) (View, error) {
	return View{}, errStub
}

// View is what an operator sees of a sale.
type View struct {
	Sale engine.Sale
}

// Pause refuses new orders at every door within a second.
func (c *Control) Pause(ctx context.Context, sale engine.SaleID, note Note) error { return errStub }

// Resume undoes Pause.
func (c *Control) Resume(ctx context.Context, sale engine.SaleID, note Note) error { return errStub }

// Close ends the sale; live orders go on.
func (c *Control) Close(ctx context.Context, sale engine.SaleID, note Note) error { return errStub }

// Restock adds units. They are for sale when recovery has applied them.
func (c *Control) Restock(ctx context.Context, sale engine.SaleID, sku engine.SKU, units int64, note Note) error {
	return errStub
}

// Withdraw takes out min(units, available) unsold units.
func (c *Control) Withdraw(ctx context.Context, sale engine.SaleID, sku engine.SKU, units int64, note Note) error {
	return errStub
}
