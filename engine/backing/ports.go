package backing

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are chosen below 32768, where Linux begins to hand out ports to outgoing
// connections: a client that dials a dead server on an ephemeral port of the
// loopback may be connected to itself, and then holds the server's port.
const (
	firstPort = 20000
	lastPort  = 31999
	portTries = 200
	loopback  = "127.0.0.1"
)

// freePort returns a port of the loopback on which nobody listens and that is
// not among taken. It is not held: state.json remembers it, and a server that
// finds it gone says so.
func freePort(taken map[int]bool) (int, error) {
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if !taken[port] && portFree(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d in %d tries", firstPort, lastPort, portTries)
}

func portFree(port int) bool {
	ln, err := net.Listen("tcp", address(port))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// choosePorts gives a stopped service its ports: those it had, or new ones where
// it had none or another process has taken one meanwhile. Existing data does not
// name its port, so it may move between two Ups.
func (s *state) choosePorts(r *record, names []string) error {
	taken := map[int]bool{}
	for _, other := range s.Services {
		for _, port := range other.Ports {
			taken[port] = true
		}
	}
	if r.Ports == nil {
		r.Ports = map[string]int{}
	}
	for _, name := range names {
		if port := r.Ports[name]; port != 0 && portFree(port) {
			continue
		}
		port, err := freePort(taken)
		if err != nil {
			return err
		}
		r.Ports[name], taken[port] = port, true
	}
	return nil
}
