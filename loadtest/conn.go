package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

const (
	dialTimeout    = 2 * time.Second
	replyTimeout   = 5 * time.Second // longer than any answer of a door takes (publish waits 1.5 s at most)
	idleLimit      = time.Second     // older connections are dialled anew: servers close idle ones after 2 s
	deadlineSlack  = time.Second     // deadlines are renewed this rarely; each renewal costs a timer
	firstReplySize = 4 << 10         // bytes
	maxReplySize   = 256 << 10       // bytes; a sale's page with 64 items is below 16 KiB
)

var (
	errReply      = errors.New("not an HTTP/1.1 reply with a Content-Length")
	errReplyLarge = fmt.Errorf("reply is larger than %d bytes", maxReplySize)
)

// reply is what was read; body is valid until the next exchange.
type reply struct {
	status     int
	retryAfter time.Duration // 0: none
	body       []byte
}

// conn is one keep-alive connection that carries one request at a time. It is
// dialled when it is needed, and again, at the next address, after an error. For
// one goroutine.
type conn struct {
	addrs    []string
	at       int // of addrs
	c        net.Conn
	buf      []byte
	used     time.Time // last exchange
	deadline time.Time
	wait     time.Duration // for a reply
}

func newConn(addrs []string, first int) *conn {
	return &conn{addrs: addrs, at: first % len(addrs), buf: make([]byte, firstReplySize), wait: replyTimeout}
}

// host returns the address in use, for the Host header.
func (c *conn) host() string { return c.addrs[c.at] }

func (c *conn) close() {
	if c.c != nil {
		_ = c.c.Close()
		c.c = nil
	}
}

// do sends a request and reads the reply. After an error the connection is
// closed, and the server may or may not have acted.
func (c *conn) do(ctx context.Context, now time.Time, req []byte, r *reply) error {
	if c.c != nil && now.Sub(c.used) > idleLimit {
		c.close()
	}
	if c.c == nil {
		d := net.Dialer{Timeout: dialTimeout}
		n, err := d.DialContext(ctx, "tcp", c.addrs[c.at])
		if err != nil {
			c.at = (c.at + 1) % len(c.addrs)
			return err
		}
		c.c, c.deadline = n, time.Time{}
	}
	if c.deadline.Sub(now) < c.wait {
		c.deadline = now.Add(c.wait + deadlineSlack)
		_ = c.c.SetDeadline(c.deadline)
	}
	c.used = now
	err := c.exchange(req, r)
	if err != nil {
		c.close()
		c.at = (c.at + 1) % len(c.addrs)
	}
	return err
}

func (c *conn) exchange(req []byte, r *reply) error {
	if _, err := c.c.Write(req); err != nil {
		return err
	}
	n, head := 0, -1
	for head < 0 {
		m, err := c.read(n)
		if err != nil {
			return err
		}
		head = bytes.Index(c.buf[max(0, n-3):n+m], []byte("\r\n\r\n"))
		if head >= 0 {
			head += max(0, n-3)
		}
		n += m
	}
	length, last, err := parseHead(c.buf[:head+2], r)
	if err != nil {
		return err
	}
	end := head + 4 + length
	if end > maxReplySize {
		return errReplyLarge
	}
	for n < end {
		m, err := c.read(n)
		if err != nil {
			return err
		}
		n += m
	}
	if n > end {
		return errReply
	}
	r.body = c.buf[head+4 : end]
	if last {
		c.close()
	}
	return nil
}

// read reads more behind the first n bytes of the buffer.
func (c *conn) read(n int) (int, error) {
	if n == len(c.buf) {
		if n >= maxReplySize {
			return 0, errReplyLarge
		}
		c.buf = append(c.buf, make([]byte, n)...)
	}
	return c.c.Read(c.buf[n:])
}

// parseHead reads status line and headers, each ended by CRLF. last tells that
// the server closes the connection.
func parseHead(b []byte, r *reply) (length int, last bool, err error) {
	const statusAt, statusEnd = len("HTTP/1.1 "), len("HTTP/1.1 200")
	if len(b) < statusEnd || !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) {
		return 0, false, errReply
	}
	r.status, r.retryAfter = 0, 0
	for _, d := range b[statusAt:statusEnd] {
		if d < '0' || d > '9' {
			return 0, false, errReply
		}
		r.status = r.status*10 + int(d-'0')
	}
	length = -1
	for {
		i := bytes.IndexByte(b, '\n')
		b = b[i+1:]
		if len(b) == 0 {
			break
		}
		switch line := b[:bytes.IndexByte(b, '\n')]; line[0] | 0x20 { // most headers are not looked at
		case 'c':
			if v, ok := header(line, "Content-Length"); ok {
				length, err = strconv.Atoi(string(v))
			} else if v, ok := header(line, "Connection"); ok {
				last = bytes.EqualFold(v, []byte("close"))
			}
		case 'r':
			if v, ok := header(line, "Retry-After"); ok {
				if s, err := strconv.Atoi(string(v)); err == nil {
					r.retryAfter = time.Duration(s) * time.Second
				}
			}
		}
	}
	if err != nil || length < 0 {
		return 0, false, errReply
	}
	return length, last, nil
}

func header(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}
