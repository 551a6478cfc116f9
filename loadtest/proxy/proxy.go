package proxy

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Toxic is what a link does to what passes.
type Toxic byte

// The toxics.
const (
	Clean     Toxic = iota
	Slow            // everything comes later
	Blackhole       // nothing passes, nobody is told; afterwards it comes, as TCP repeats what was lost
	Resetting       // every connection is reset, new ones too
	HalfOpen        // connections of the moment go dead for ever, new ones work
)

const (
	proxyBuffer = 32 << 10 // bytes of one read
	proxyQueue  = 1024     // reads under way in one direction
)

// Proxy stands in a link: it passes bytes between those who dial it and target,
// and harms them as told. Safe for use by many goroutines.
type Proxy struct {
	ln   net.Listener
	hits atomic.Int64 // connections and reads that the toxic met

	mu    sync.Mutex
	aims  []string // host:port
	now   Toxic
	delay time.Duration
	turn  chan struct{} // closed when the toxic changes
	pairs map[*pair]struct{}
	over  bool
	all   sync.WaitGroup
}

// pair is one connection through the proxy.
type pair struct {
	client, server net.Conn
	dead           atomic.Bool // half open: what comes is dropped
}

func (c *pair) close() { _ = c.client.Close(); _ = c.server.Close() }

// New returns a proxy that listens on the loopback and passes everything to target,
// host:port. End it with Close.
func New(target string) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with close
	if err != nil {
		return nil, err
	}
	p := &Proxy{ln: ln, aims: []string{target}, turn: make(chan struct{}), pairs: map[*pair]struct{}{}}
	p.all.Go(p.accept)
	return p, nil
}

// Addr is where it listens, host:port.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Hits counts the connections and reads that a toxic met.
func (p *Proxy) Hits() int64 { return p.hits.Load() }

// Close ends every connection and returns when nothing of it runs.
func (p *Proxy) Close() {
	_ = p.ln.Close()
	p.Set(Clean, 0)
	p.mu.Lock()
	p.over = true
	for c := range p.pairs {
		c.close()
	}
	p.mu.Unlock()
	p.all.Wait()
}

// Set changes what the link does from now on. delay is of Slow, in each direction.
func (p *Proxy) Set(t Toxic, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now, p.delay = t, delay
	close(p.turn)
	p.turn = make(chan struct{})
	for c := range p.pairs {
		switch t {
		case Resetting:
			p.hits.Add(1)
			abort(c)
		case HalfOpen:
			p.hits.Add(1)
			c.dead.Store(true)
		case Blackhole:
			p.hits.Add(1)
		}
	}
}

// Aim makes new connections go to the first of targets that takes them, as a load
// balancer does. With cut, those that are there are reset.
func (p *Proxy) Aim(cut bool, targets ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.aims = targets
	for c := range p.pairs {
		if cut {
			abort(c)
		}
	}
}

// dial connects to the first target that takes it.
func (p *Proxy) dial() (server net.Conn, err error) {
	p.mu.Lock()
	aims := p.aims
	p.mu.Unlock()
	err = net.ErrClosed
	for _, at := range aims {
		if server, err = net.Dial("tcp", at); err == nil { //nolint:noctx // on the loopback it answers at once
			return server, nil
		}
	}
	return nil, err
}

// abort resets both sides: RST instead of FIN.
func abort(c *pair) {
	for _, side := range []net.Conn{c.client, c.server} {
		if tcp, ok := side.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
	c.close()
}

func (p *Proxy) state() (Toxic, time.Duration, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, p.delay, p.turn
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.all.Go(func() { p.open(client) })
	}
}

// open dials the target for a client, once the link lets it.
func (p *Proxy) open(client net.Conn) {
	for {
		now, _, turn := p.state()
		if now == Resetting {
			p.hits.Add(1)
			abort(&pair{client: client, server: client})
			return
		}
		if now != Blackhole {
			break
		}
		p.hits.Add(1)
		<-turn
	}
	server, err := p.dial()
	if err != nil {
		abort(&pair{client: client, server: client})
		return
	}
	c := &pair{client: client, server: server}
	p.mu.Lock()
	p.pairs[c] = struct{}{}
	if p.over {
		c.close()
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pass(c, client, server) })
	both.Go(func() { p.pass(c, server, client) })
	both.Wait()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// parcel is what one read brought, and when it may be handed on.
type parcel struct {
	b   []byte
	due time.Time
}

// pass carries one direction. Reads and writes are apart, so that a delay makes
// nothing slower, only later.
func (p *Proxy) pass(c *pair, from, to net.Conn) {
	queue := make(chan parcel, proxyQueue)
	var writer sync.WaitGroup
	writer.Go(func() {
		for b := range queue {
			if wait := time.Until(b.due); wait > 0 {
				time.Sleep(wait)
			}
			if _, err := to.Write(b.b); err != nil {
				c.close()
			}
		}
	})
	for {
		buf := make([]byte, proxyBuffer)
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		now, delay, turn := p.state()
		for now == Blackhole {
			p.hits.Add(1)
			<-turn
			now, delay, turn = p.state()
		}
		if c.dead.Load() {
			p.hits.Add(1)
			continue
		}
		if now == Slow {
			p.hits.Add(1)
		}
		queue <- parcel{buf[:n], time.Now().Add(delay)}
	}
	close(queue)
	writer.Wait()
	if c.dead.Load() {
		return // the other side must not hear that this one has gone
	}
	c.close()
}
