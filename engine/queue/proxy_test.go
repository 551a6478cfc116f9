package queue_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a client and the broker. It can cut every connection,
// stop reading from the clients (as a broker under an alarm does), refuse new
// connections, and speak to the clients in the broker's name.
type proxy struct {
	ln     net.Listener
	target string

	mu     sync.Mutex
	refuse bool
	pairs  map[*pair]struct{}
	stuck  chan struct{} // not nil: nothing is read from clients until it closes
	wg     sync.WaitGroup
}

type pair struct {
	client, server net.Conn
	mu             sync.Mutex // one writer to the client at a time
}

func newProxy(t testing.TB, amqpURL string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(amqpURL)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, target: u.Host, pairs: map[*pair]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() { _ = ln.Close(); p.stick(false); p.cut(); p.wg.Wait() })
	u.Host = ln.Addr().String()
	return p, u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		c := &pair{client: client, server: server}
		p.mu.Lock()
		if p.refuse {
			p.mu.Unlock()
			c.close()
			continue
		}
		p.pairs[c] = struct{}{}
		p.wg.Add(2)
		p.mu.Unlock()
		go p.upstream(c)
		go p.downstream(c)
	}
}

func (p *proxy) upstream(c *pair) {
	defer p.wg.Done()
	defer c.close()
	buf := make([]byte, 32<<10)
	for {
		p.mu.Lock()
		stuck := p.stuck
		p.mu.Unlock()
		if stuck != nil {
			<-stuck
		}
		n, err := c.client.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.server.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) downstream(c *pair) {
	defer p.wg.Done()
	defer c.close()
	_, _ = io.Copy(clientSide{c}, c.server)
}

type clientSide struct{ *pair }

func (c clientSide) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client.Write(b)
}

func (c *pair) close() { _ = c.client.Close(); _ = c.server.Close() }

// cut closes every connection now open.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.pairs)
	for c := range p.pairs {
		c.close()
		delete(p.pairs, c)
	}
	return n
}

func (p *proxy) setRefuse(yes bool) { p.mu.Lock(); p.refuse = yes; p.mu.Unlock() }

// stick stops, or goes on, reading from clients. What a Read already waits for
// still passes.
func (p *proxy) stick(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if yes && p.stuck == nil {
		p.stuck = make(chan struct{})
	} else if !yes && p.stuck != nil {
		close(p.stuck)
		p.stuck = nil
	}
}

// blocked sends connection.blocked, or connection.unblocked, to all clients. It
// must be called while the broker is silent.
func (p *proxy) blocked(yes bool) {
	method := []byte{0, 10, 0, 61} // connection.unblocked
	if yes {
		method = append([]byte{0, 10, 0, 60, 6}, "memory"...) // connection.blocked
	}
	frame := append([]byte{1, 0, 0, 0, 0, 0, byte(len(method))}, method...)
	frame = append(frame, 0xce)
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		_, _ = clientSide{c}.Write(frame)
	}
}
