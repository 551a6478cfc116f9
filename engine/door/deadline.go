package door

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Server is a fasthttp server whose connections take their deadlines lazily.
type Server struct {
	*fasthttp.Server
}

// Serve serves the connections of ln until Shutdown.
func (s *Server) Serve(ln net.Listener) error { return s.Server.Serve(lazyListener{ln}) }

type lazyListener struct{ net.Listener }

func (l lazyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lazyConn{Conn: c}, nil
}

// lazyConn moves a deadline of the connection only when it has to be earlier, or
// when it has passed. fasthttp sets three per request, and each costs the runtime a
// timer: a twentieth of the processor time of a refusal. Here a busy connection
// moves one every few seconds.
type lazyConn struct {
	net.Conn
	read, write deadline
}

// deadline is what was asked for, and what the connection was told, which is never
// later; on the clock of the process, 0 is none.
type deadline struct{ asked, told atomic.Int64 }

var processStart = time.Now().Add(-time.Second)

func clockOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, int64(t.Sub(processStart)))
}

// SetReadDeadline is net.Conn's.
func (c *lazyConn) SetReadDeadline(t time.Time) error {
	return c.read.set(t, c.Conn.SetReadDeadline)
}

// SetWriteDeadline is net.Conn's.
func (c *lazyConn) SetWriteDeadline(t time.Time) error {
	return c.write.set(t, c.Conn.SetWriteDeadline)
}

// SetDeadline is net.Conn's.
func (c *lazyConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (d *deadline) set(t time.Time, tell func(time.Time) error) error {
	at := clockOf(t)
	d.asked.Store(at)
	if told := d.told.Load(); told != 0 && at >= told {
		return nil
	}
	d.told.Store(at)
	return tell(t)
}

// again tells whether an operation failed on a deadline that has been moved since,
// and tells the connection the one that counts.
func (d *deadline) again(err error, tell func(time.Time) error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	asked := d.asked.Load()
	if asked != 0 && asked <= clockOf(time.Now()) {
		return false
	}
	d.told.Store(asked)
	t := time.Time{}
	if asked != 0 {
		t = processStart.Add(time.Duration(asked))
	}
	return tell(t) == nil
}

// Read is net.Conn's.
func (c *lazyConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if n > 0 || !c.read.again(err, c.Conn.SetReadDeadline) {
			return n, err
		}
	}
}

// Write is net.Conn's.
func (c *lazyConn) Write(p []byte) (n int, err error) {
	for {
		m, err := c.Conn.Write(p[n:])
		n += m
		if err == nil || !c.write.again(err, c.Conn.SetWriteDeadline) {
			return n, err
		}
	}
}
