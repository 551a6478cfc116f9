package main

import (
	"context"
	"crypto/ed25519"
	"errors"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/door"
	"github.com/doorbuster/doorbuster/engine/orders"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/engine/relay"
	"github.com/doorbuster/doorbuster/engine/status"
	"github.com/doorbuster/doorbuster/payment"
	"github.com/doorbuster/doorbuster/payment/ledger"
	"github.com/doorbuster/doorbuster/payment/provider"
)

func (p *program) wireDoor(ctx context.Context) error {
	tickets, err := p.cfg.Globals.ticketKeys()
	if err != nil {
		return err
	}
	secrets, err := p.cfg.Globals.secrets()
	if err != nil {
		return err
	}
	orderKeys, err := numbered("order_keys", secrets.OrderKeys)
	if err != nil {
		return err
	}
	store, _, err := p.orders(ctx, roleDoor, doorConns)
	if err != nil {
		return err
	}
	d, err := door.New(door.Config{
		Stock: p.stock, Publisher: p.pub, Tickets: tickets, OrderKeys: orderKeys,
		Logger: p.log, Registerer: p.reg,
		CheckDurable: p.stock.CheckDurable, Archive: archive{store},
		GroupOfOne: p.cmd.GroupOfOne, GateMax: p.cmd.GateMax,
		BuyerRate: p.cmd.BuyerRate, BuyerBurst: p.cmd.BuyerBurst,
	})
	if err != nil {
		return err
	}
	p.routes = append(p.routes, d.Handle)
	p.add(roleDoor, d.Run)
	return nil
}

// archive is a door's way to PostgreSQL.
type archive struct{ store *orders.Store }

func (a archive) Sale(ctx context.Context, id engine.SaleID) (engine.Sale, bool, error) {
	sale, _, err := a.store.Sale(ctx, id)
	if errors.Is(err, orders.ErrNoSale) {
		return engine.Sale{}, false, nil
	}
	return sale, err == nil, err
}

func (a archive) Orders(ctx context.Context, ids []engine.OrderID) ([]door.Ended, error) {
	views, err := a.store.Orders(ctx, ids)
	known := make([]door.Ended, len(views))
	for i := range views {
		known[i] = door.Ended{Order: views[i].Order, State: views[i].State}
	}
	return known, err
}

func (p *program) wireStatus(ctx context.Context) error {
	tickets, err := p.cfg.Globals.ticketKeys()
	if err != nil {
		return err
	}
	secrets, err := p.cfg.Globals.secrets()
	if err != nil {
		return err
	}
	key, err := secrets.tokenKey()
	if err != nil {
		return err
	}
	store, _, err := p.orders(ctx, roleStatus, statusConns)
	if err != nil {
		return err
	}
	slot, err := p.slot(statusConns)
	if err != nil {
		return err
	}
	s, err := status.New(status.Config{
		Orders: store, Stock: slot, Tickets: tickets, Logger: p.log, Registerer: p.reg, MaxQueries: statusConns,
		Tokens: status.TokenConfig{
			Issuer: tokenIssuer, Audience: tokenAudience,
			Keys: map[string]ed25519.PublicKey{tokenKeyID: key.Public().(ed25519.PublicKey)},
		},
	})
	if err != nil {
		return err
	}
	p.routes = append(p.routes, s.Handle)
	p.add(roleStatus, s.Run)
	return nil
}

func (p *program) wireRelay(ctx context.Context) error {
	store, _, err := p.orders(ctx, roleRelay, relayConns)
	if err != nil {
		return err
	}
	r := relay.New(relay.Config{Stock: p.stock, Sales: store, Publisher: p.pub, Logger: p.log, Registerer: p.reg})
	p.add(roleRelay, r.Run)
	p.add(roleRelay, func(ctx context.Context) error { return queue.Measure(ctx, p.queueConfig()) })
	return nil
}

func (p *program) wireWorker(ctx context.Context) error {
	store, pool, err := p.orders(ctx, roleWorker, workerConns)
	if err != nil {
		return err
	}
	if err := p.warnInstant(ctx, store); err != nil {
		return err
	}
	providers := map[string]provider.Provider{instantProvider: provider.NewInstant()}
	if p.cmd.Sandbox != "" {
		providers[sandboxProvider] = provider.NewHTTP(p.cmd.Sandbox)
	}
	cfg := payment.Config{
		Orders: store, Stock: p.stock, Ledger: ledger.New(pool), Providers: providers,
		Queue:  p.cfg.Backends.queue(p.log),
		Logger: p.log, Registerer: p.reg,
		GiveWay: p.cmd.GiveWay || p.has(roleDoor),
	}
	if p.recovery != nil {
		cfg.Moved = p.recovery.Nudge
	}
	w, err := payment.New(cfg)
	if err != nil {
		return err
	}
	p.add(roleWorker, w.Run)
	return nil
}

// warnInstant names the sales in use whose provider will have forgotten, by this very
// start, what it was paid before.
func (p *program) warnInstant(ctx context.Context, store *orders.Store) error {
	sales, err := store.Sales(ctx)
	if err != nil {
		return err
	}
	for _, id := range sales {
		sale, _, err := store.Sale(ctx, id)
		if err != nil {
			return err
		}
		if sale.Provider == instantProvider {
			p.log.Warn("the instant provider moves no money and its book ended with the last process: charges of this sale from before are unknown to it",
				"sale", sale.ID)
		}
	}
	return nil
}

func (p *program) wireRecovery(ctx context.Context) error {
	store, _, err := p.orders(ctx, roleRecovery, recoveryConns)
	if err != nil {
		return err
	}
	lead, _, err := p.orders(ctx, roleRecovery+" lead", leadConns)
	if err != nil {
		return err
	}
	pulse, err := p.slot(pulseConns)
	if err != nil {
		return err
	}
	drainer := relay.New(relay.Config{Stock: p.stock, Sales: store, Publisher: p.pub, Logger: p.log})
	depth := func(ctx context.Context, q int) (int, error) {
		ready, _, err := queue.Depths(ctx, p.cfg.Backends.queue(nil))
		if err != nil || q >= len(ready) {
			return 0, err
		}
		return ready[q], nil
	}
	p.recovery = recovery.New(recovery.Config{
		Depth: depth,
		Stock: p.stock, Pulse: pulse, Orders: recovery.Books(store), Lead: lead.Leader(),
		Publisher: p.pub, Drainer: drainer, Notes: store.NoteRecoveries, Secure: p.stock.Secure,
		Logger: p.log, Registerer: p.reg,
	})
	p.add(roleRecovery, p.recovery.Run)
	return nil
}
