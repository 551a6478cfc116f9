package door_test

import (
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"

	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
)

// gag stands between a door and its broker, and keeps to itself what the broker says
// while it is on: published messages arrive, their confirms do not.
type gag struct {
	ln     net.Listener
	target string
	wg     sync.WaitGroup

	mu    sync.Mutex
	on    chan struct{} // not nil: held until it closes
	conns []net.Conn
}

func newGag(t *testing.T, amqpURL string) (*gag, string) {
	t.Helper()
	u, err := url.Parse(amqpURL)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gag{ln: ln, target: u.Host}
	g.wg.Go(g.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		g.hold(false)
		g.mu.Lock()
		for _, c := range g.conns {
			_ = c.Close()
		}
		g.mu.Unlock()
		g.wg.Wait()
	})
	u.Host = ln.Addr().String()
	return g, u.String()
}

func (g *gag) hold(yes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if yes && g.on == nil {
		g.on = make(chan struct{})
	} else if !yes && g.on != nil {
		close(g.on)
		g.on = nil
	}
}

func (g *gag) accept() {
	for {
		client, err := g.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", g.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		g.mu.Lock()
		g.conns = append(g.conns, client, server)
		g.mu.Unlock()
		g.wg.Go(func() { g.pass(server, client, false) })
		g.wg.Go(func() { g.pass(client, server, true) })
	}
}

func (g *gag) pass(to, from net.Conn, gagged bool) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		g.mu.Lock()
		on := g.on
		g.mu.Unlock()
		if gagged && on != nil {
			<-on
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// The last units go while RabbitMQ's confirms are held back. Whoever heard 503
// repeats after the sell-out and gets his own order, and never hears "sold out"; who
// comes new, does. Nothing is sold twice, and every order is in the queue.
func TestRealConfirmHeldBackWhileTheLastUnitGoes(t *testing.T) {
	t.Parallel()
	const units, early = 24, 4
	broker, through := newGag(t, backingtest.AMQP(t))
	r := setupBehind(t, units, through)
	until(t, func() bool { return r.buy("early0").status == 202 })
	orders := map[string]bool{r.buy("early0", replay).order(): true}
	for i := 1; i < early; i++ {
		rep := r.buy("early" + strconv.Itoa(i))
		if rep.status != 202 {
			t.Fatal(rep.raw)
		}
		orders[rep.order()] = true
	}

	broker.hold(true)
	first := all(units-early, func(i int) reply { return r.buy("buyer" + strconv.Itoa(i)) })
	for i, rep := range first {
		if rep.status != 503 || rep.problem != "outcome-unknown" || rep.order() == "" || rep.header("Retry-After") == "" {
			t.Errorf("buyer%d, confirm held back: %d %s", i, rep.status, rep.raw)
		}
	}
	until(t, func() bool { return r.buy("late").problem == "sold-out" }) // and from memory, from now on

	for round := range 2 { // still gagged, then not
		broker.hold(round == 0)
		for i, rep := range all(len(first), func(i int) reply {
			if i%2 == 0 { // the others are remembered by the door
				return r.buy("buyer"+strconv.Itoa(i), replay)
			}
			return r.buy("buyer" + strconv.Itoa(i))
		}) {
			if rep.problem == "sold-out" || rep.order() != first[i].order() {
				t.Errorf("buyer%d repeats: %d %s, first %s", i, rep.status, rep.raw, first[i].raw)
			}
			if round == 0 {
				continue
			}
			if rep.status != 202 || orders[rep.order()] {
				t.Errorf("buyer%d repeats: %d %s", i, rep.status, rep.raw)
			}
			orders[rep.order()] = true
		}
		if rep := r.buy("new" + strconv.Itoa(round)); rep.problem != "sold-out" {
			t.Errorf("a newcomer: %d %s", rep.status, rep.raw)
		}
	}
	w, err := r.store.Watch(t.Context(), r.sale.ID, 0)
	if err != nil || len(orders) != units || w.Seq != units || w.Items[0].Held != units || w.Items[0].Available != 0 {
		t.Errorf("%d orders, seq %d, %+v %v; want %d", len(orders), w.Seq, w.Items, err, units)
	}
	r.published(orders)
}
