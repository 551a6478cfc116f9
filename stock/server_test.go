package stock_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Ports of the servers that the tests of this package start themselves; a cluster
// node also listens 10000 above its own.
const (
	clusterPort = 17100 // and the two above
	firstPort   = 17103
	lastPort    = 17140
	startWithin = 10 * time.Second
)

// server is a redis-server process of a test's own.
type server struct {
	port int
	dir  string
	args []string
	cmd  *exec.Cmd
}

var ports struct {
	sync.Mutex
	next int
}

// startRedis starts a Redis that nobody else uses, with AOF as in production, and
// ends it with the test.
func startRedis(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{port: freePort(t), dir: t.TempDir(), args: append([]string{"--appendonly", "yes", "--maxmemory-policy", "noeviction"}, args...)}
	s.start(t)
	t.Cleanup(func() { s.kill() })
	return s
}

// freePort is a port on which nobody listens.
func freePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for ; firstPort+ports.next <= lastPort; ports.next++ {
		port := firstPort + ports.next
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			_ = l.Close()
			ports.next++
			return port
		}
	}
	t.Fatalf("no port free from %d to %d", firstPort, lastPort)
	return 0
}

func (s *server) url() string { return fmt.Sprintf("redis://127.0.0.1:%d/0", s.port) }

// start starts it, again after a kill, and waits until it answers.
func (s *server) start(t testing.TB) {
	t.Helper()
	args := append([]string{"--port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no"}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	out, err := os.Create(filepath.Join(s.dir, "log"))
	must(t, err)
	defer func() { _ = out.Close() }()
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it does not outlive a test that crashed
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	c := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", s.port), DisableIdentity: true})
	defer func() { _ = c.Close() }()
	eventually(t, "redis-server answers", func() error { return c.Ping(context.Background()).Err() })
}

// kill ends it as a crash does.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// eventually waits until f no longer fails.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(startWithin)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, startWithin, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// startCluster starts a Redis Cluster of three masters and returns its URL.
func startCluster(t testing.TB) string {
	t.Helper()
	const nodes, slots = 3, 16384
	var urls []string
	var clients []*redis.Client
	for i := range nodes {
		s := &server{port: clusterPort + i, dir: t.TempDir(), args: []string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--appendonly", "yes",
		}}
		s.start(t)
		t.Cleanup(func() { s.kill() })
		c := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", s.port), DisableIdentity: true})
		t.Cleanup(func() { _ = c.Close() })
		urls, clients = append(urls, s.url()), append(clients, c)
	}
	ctx := t.Context()
	for i, c := range clients {
		must(t, c.ClusterAddSlotsRange(ctx, i*slots/nodes, (i+1)*slots/nodes-1).Err())
		must(t, c.ClusterMeet(ctx, "127.0.0.1", fmt.Sprint(clusterPort)).Err())
	}
	for _, c := range clients {
		eventually(t, "the cluster is whole", func() error {
			info, err := c.ClusterInfo(ctx).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3")) {
				err = fmt.Errorf("state: %s", info)
			}
			return err
		})
	}
	return strings.Join(urls, ",")
}
