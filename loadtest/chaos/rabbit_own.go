package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/queue"
	"github.com/doorbuster/doorbuster/loadtest/proxy"
)

const (
	clusterOf  = 3
	clusterKey = "cluster-of-three" // cookie and password of all
	oneLost    = 1                  // index of a node that does not lead
)

// clusterCells break a cluster of three brokers. Its queues are led by the first,
// whose clients find another behind their proxy when it goes.
func clusterCells() []*Cell {
	cells := []*Cell{
		{Fault: "leader-killed", hold: full, own: cluster(0, 1, 2), arm: armLeader, strike: killNodes(0), heal: startNodes},
		{Fault: "follower-killed", hold: full, own: cluster(0, 1, 2), arm: armLeader, strike: killNodes(oneLost), heal: startNodes},
		{Fault: "majority-lost", hold: full, own: cluster(0, 1, 2), arm: armLeader, strike: killNodes(1, 2), heal: startNodes},
		{Fault: "leader-stopped", hold: full, own: cluster(1, 2, 0), arm: armLeader, strike: stopLeader, heal: contLeader},
		{Fault: "minority-cut", hold: full, own: cluster(0, 1, 2), arm: armCut, strike: tellEval, heal: healCut},
	}
	for _, c := range cells {
		c.Component, c.kind = "cluster", "cluster"
	}
	return cells
}

// nodes are the brokers of the cluster, and the proxy before them.
type nodes struct {
	all   [clusterOf]*backing.Services
	front *proxy.Proxy
	pids  [clusterOf]int // as they were struck, 0: not
	led   string         // what the first said of the sale's queue
}

func nodeName(i int) string { return fmt.Sprintf("doorbuster-c%d@localhost", i+1) }

func nodeKey(i int) string { return fmt.Sprintf("cluster-%d", i+1) }

// cluster brings three brokers that are one cluster, with a proxy before them that
// goes to the first of those in order that takes it.
func cluster(order ...int) func(context.Context, *house) error {
	return func(ctx context.Context, h *house) error {
		n := new(nodes)
		if err := n.up(ctx, h.cfg); err != nil {
			return err
		}
		// Who declares a queue leads it.
		if err := queue.Declare(ctx, queue.Config{URL: n.all[0].URLs().AMQP, Prefix: h.prefix()}); err != nil {
			return err
		}
		at, err := url.Parse(n.all[0].URLs().AMQP)
		if err != nil {
			return err
		}
		var targets []string
		for _, i := range order {
			targets = append(targets, hostOf(n.all[i].URLs().AMQP))
		}
		if n.front, err = proxy.New(at.Host); err != nil {
			return err
		}
		n.front.Aim(false, targets...)
		h.closers = append(h.closers, closing(n.front))
		at.Host = n.front.Addr()
		h.memory["nodes"], h.admin.AMQP = n, at.String()
		return nil
	}
}

// up starts those that do not run: the first alone, because the others join it, then
// the others side by side.
func (n *nodes) up(ctx context.Context, cfg *Config) (err error) {
	root, err := cfg.ownRoot()
	if err != nil {
		return err
	}
	conf := filepath.Join(root, "cluster.d")
	if err := os.MkdirAll(conf, 0o755); err != nil { // the brokers' account reads it
		return err
	}
	lines := []string{"cluster_formation.peer_discovery_backend = classic_config", "cluster_partition_handling = pause_minority"}
	for i := range clusterOf {
		lines = append(lines, fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s", i+1, nodeName(i)))
	}
	if err := os.WriteFile(filepath.Join(conf, "cluster.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	start := func(i int) (err error) {
		env := []string{"RABBITMQ_NODENAME=" + nodeName(i), "RABBITMQ_CONFIG_FILES=" + filepath.Join(conf, "*.conf")}
		if i > 0 { // they find one another at the port mapper of the first
			env = append(env, fmt.Sprintf("ERL_EPMD_PORT=%d", n.all[0].MapperPort()))
		}
		n.all[i], err = cfg.ownServer(ctx, nodeKey(i), backing.RabbitMQ, backing.Config{
			Password: clusterKey, Env: map[backing.Name][]string{backing.RabbitMQ: env},
		})
		return err
	}
	if err := start(0); err != nil {
		return err
	}
	var both sync.WaitGroup
	errs := make([]error, clusterOf)
	for i := 1; i < clusterOf; i++ {
		both.Go(func() { errs[i] = start(i) })
	}
	both.Wait()
	return errors.Join(errs...)
}

// evalLed tells who leads a queue, with how many members, in a cluster of how many.
const (
	evalLed = `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)), {led, element(2, amqqueue:get_pid(Q)), members, length(maps:get(nodes, amqqueue:get_type_state(Q))), nodes, 1 + length(nodes())}.`
	ledWant = "{led,'doorbuster-c1@localhost',members,3,nodes,3}"
)

// armLeader makes sure that there is a cluster, and that its first node leads the
// sale's queue.
func armLeader(ctx context.Context, h *house) error {
	n := h.memory["nodes"].(*nodes)
	name := fmt.Sprintf("%singest.%d", h.prefix(), queue.IngestQueue(engine.SaleID(h.name)))
	cmd, err := n.all[0].RabbitEval(ctx, fmt.Sprintf(evalLed, name))
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if n.led = strings.TrimSpace(string(out)); err != nil || n.led != ledWant {
		return fmt.Errorf("the broker said %s, want %s: %w", n.led, ledWant, err)
	}
	return nil
}

func killNodes(which ...int) deed {
	return func(ctx context.Context, h *house) (string, error) {
		n := h.memory["nodes"].(*nodes)
		said := []string{n.led}
		for _, i := range which {
			n.pids[i] = n.all[i].PID(backing.RabbitMQ)
			if err := n.all[i].Kill(ctx, backing.RabbitMQ); err != nil {
				return "", err
			}
			if n.pids[i] == 0 || n.all[i].PID(backing.RabbitMQ) != 0 {
				return "", unproven("%s had pid %d", nodeName(i), n.pids[i])
			}
			said = append(said, fmt.Sprintf("%s (pid %d) killed", nodeName(i), n.pids[i]))
		}
		return strings.Join(said, ", "), nil
	}
}

// startNodes starts them side by side: two that were lost wait for each other.
func startNodes(ctx context.Context, h *house) (string, error) {
	n, ok := h.memory["nodes"].(*nodes)
	if !ok {
		return "", nil
	}
	var all sync.WaitGroup
	errs := make([]error, clusterOf)
	for i, was := range n.pids {
		if was != 0 {
			all.Go(func() { errs[i] = n.all[i].Start(ctx, backing.RabbitMQ) })
		}
	}
	all.Wait()
	return "", errors.Join(errs...)
}

// stopLeader stops the node that leads all queues. Clients are with another one.
func stopLeader(ctx context.Context, h *house) (string, error) {
	n := h.memory["nodes"].(*nodes)
	pids, err := n.all[0].Pause(ctx, backing.RabbitMQ)
	if err != nil {
		return "", err
	}
	if !stopped(pids, true) {
		return "", unproven("%s is not stopped", nodeName(0))
	}
	return fmt.Sprintf("%s, %s stopped, %d processes", n.led, nodeName(0), len(pids)), nil
}

func contLeader(ctx context.Context, h *house) (string, error) {
	n, ok := h.memory["nodes"].(*nodes)
	if !ok {
		return "", nil
	}
	_, err := n.all[0].Resume(ctx, backing.RabbitMQ)
	return "", err
}

// evalCut makes a node talk to no other: it and they do not agree on a secret any
// more, as if a wire were cut. It says whom it sees then.
const (
	evalCut   = `Others = nodes(), [erlang:set_cookie(N, cut) || N <- Others], [erlang:disconnect_node(N) || N <- Others], timer:sleep(50), {cut, length(Others), nodes()}.`
	evalUncut = `[erlang:set_cookie(list_to_atom(N), erlang:get_cookie()) || N <- [%s]], [net_kernel:connect_node(list_to_atom(N)) || N <- [%s]], {sees, nodes()}.`
)

func armCut(ctx context.Context, h *house) error {
	return h.armEvalOn(ctx, h.memory["nodes"].(*nodes).all[0], evalCut)
}

// healCut joins the wire, and waits until the node that had paused itself serves.
func healCut(ctx context.Context, h *house) (string, error) {
	n, ok := h.memory["nodes"].(*nodes)
	if !ok {
		return "", nil
	}
	var others []string
	for i := 1; i < clusterOf; i++ {
		others = append(others, `"`+nodeName(i)+`"`)
	}
	list := strings.Join(others, ", ")
	proof, err := heardEval("{cut,2,[]}", fmt.Sprintf(evalUncut, list, list))(ctx, h)
	if err != nil {
		return "", err
	}
	return proof, n.all[0].Start(ctx, backing.RabbitMQ) // it runs; this waits until it answers
}
