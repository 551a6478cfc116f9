package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/queue"
)

// What the broker is told, in Erlang. Evaluating begins long before the moment,
// because it boots a virtual machine first; then it waits for a file.
const (
	whenTold = `Wait = fun F() -> case file:read_file_info("%s") of {ok, _} -> ok; _ -> timer:sleep(2), F() end end, Wait(), `

	evalClose  = `Cs = rabbit_networking:connections(), rabbit_networking:close_connections(Cs, "chaos"), {closed, length(Cs)}.`
	evalMemory = `vm_memory_monitor:set_vm_memory_high_watermark(0.000001), vm_memory_monitor:get_vm_memory_high_watermark().`
	evalDisk   = `rabbit_disk_monitor:set_disk_free_limit("100000GB"), rabbit_disk_monitor:get_disk_free_limit().`
	evalHealed = `vm_memory_monitor:set_vm_memory_high_watermark(0.4), rabbit_disk_monitor:set_disk_free_limit("200MB"), alarms.`

	evalReady = 4 * time.Second  // for the evaluation to be waiting in the broker
	evalMost  = 15 * time.Second // for its answer
)

func rabbitCells() []*Cell {
	const r = string(backing.RabbitMQ)
	cells := []*Cell{
		{Component: r, Fault: "connections-closed", hold: quick, arm: armEval(evalClose), strike: tellEval, heal: heardEval("{closed,", "")},
		{Component: r, Fault: "memory-alarm", hold: full, arm: armEval(evalMemory), strike: tellEval, heal: heardEval("", evalHealed)},
		{Component: r, Fault: "disk-alarm", hold: full, arm: armEval(evalDisk), strike: tellEval, heal: heardEval("", evalHealed)},
		{Component: r, Fault: "delivery-limit", hold: full, flows: true, arm: ready, strike: bounce, heal: redrive},
		{Component: r, Fault: "queue-deleted", drops: inQueue, hold: quick, strike: deleteQueue, heal: servedAgain},
	}
	for _, c := range cells {
		c.kind = r
	}
	return cells
}

// evaluation is an expression that waits in the broker.
type evaluation struct {
	on   *backing.Services
	go_  string // the file it waits for
	out  bytes.Buffer
	done chan error
	end  context.CancelFunc
}

func armEval(expression string) func(context.Context, *house) error {
	return func(ctx context.Context, h *house) error { return h.armEvalOn(ctx, h.cfg.Services, expression) }
}

// armEvalOn makes ready what the broker of s will evaluate.
func (h *house) armEvalOn(ctx context.Context, s *backing.Services, expression string) error {
	// The broker's account must be able to see the file: its own directory holds it.
	file := filepath.Join(s.Dir(backing.RabbitMQ), h.name+".go")
	own, end := context.WithCancel(context.WithoutCancel(ctx))
	cmd, err := s.RabbitEval(own, fmt.Sprintf(whenTold, file)+expression)
	if err != nil {
		end()
		return err
	}
	e := &evaluation{on: s, go_: file, done: make(chan error, 1), end: end}
	cmd.Stdout, cmd.Stderr = &e.out, &e.out
	if err := cmd.Start(); err != nil {
		end()
		return err
	}
	go func() { e.done <- cmd.Wait() }()
	h.memory["eval"] = e
	timeout := time.NewTimer(evalReady)
	defer timeout.Stop()
	select { // it says nothing when it waits
	case err := <-e.done:
		return fmt.Errorf("rabbitmqctl eval ended early: %w: %s", err, e.out.String())
	case <-timeout.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func tellEval(_ context.Context, h *house) (string, error) {
	return "", os.WriteFile(h.memory["eval"].(*evaluation).go_, nil, 0o644)
}

// heardEval hears what the expression said, which must contain proof, and heals with
// another.
func heardEval(proof, heal string) deed {
	return func(ctx context.Context, h *house) (string, error) {
		e, ok := h.memory["eval"].(*evaluation)
		if !ok {
			return "", nil
		}
		defer e.end()
		defer func() { _ = os.Remove(e.go_) }()
		if err := os.WriteFile(e.go_, nil, 0o644); err != nil { // it may never have been told
			return "", err
		}
		var err error
		select {
		case err = <-e.done:
		case <-time.After(evalMost):
			err = fmt.Errorf("no answer within %s", evalMost)
		}
		said := strings.Join(strings.Fields(e.out.String()), " ")
		if err == nil && heal != "" {
			cmd, cerr := e.on.RabbitEval(ctx, heal)
			if cerr != nil {
				return "", cerr
			}
			out, cerr := cmd.CombinedOutput()
			if cerr != nil {
				return "", fmt.Errorf("heal: %w: %s", cerr, out)
			}
		}
		if err != nil || !strings.Contains(said, proof) || said == proof+"0}" {
			return "", fmt.Errorf("%w: the broker said %q: %w", errUnproven, said, err)
		}
		return "the broker said " + said, nil
	}
}

// servedMost is how long the roles have to declare a deleted queue anew.
const servedMost = 15 * time.Second

// servedAgain waits until the ingest queue is there again. A broker that was told to
// delete a queue while it was still taking it up after a restart may serve no quorum
// queue any more, old or new, until it is started anew (RabbitMQ 3.10.8: its supervisor
// of at-least-once dead-lettering gives up); then that is done, as an operator would.
func servedAgain(ctx context.Context, h *house) (string, error) {
	soon, stop := context.WithTimeout(ctx, servedMost)
	defer stop()
	if until(soon, func() bool { return h.served() == nil }) == nil {
		return "", nil
	}
	return "the broker served it no more, and was started anew", h.cfg.restartBroker(ctx)
}

// served tells whether the broker has the sale's ingest queue, and can speak for it.
func (h *house) served() error {
	return h.atQueue(func(ch *amqp.Channel, name string) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	})
}

// atQueue does something with the sale's ingest queue, over a connection of its own.
func (h *house) atQueue(do func(ch *amqp.Channel, name string) error) error {
	conn, err := amqp.Dial(h.admin.AMQP)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return do(ch, fmt.Sprintf("%singest.%d", h.prefix(), queue.IngestQueue(h.sale.ID)))
}

func (c *Config) restartBroker(ctx context.Context) error {
	return errors.Join(c.Services.Kill(ctx, backing.RabbitMQ), c.Services.Start(ctx, backing.RabbitMQ))
}

// deleteQueue deletes the ingest queue of the sale, with what is in it. What was
// confirmed and not yet ingested lives on in Redis alone: the sweep must find it.
func deleteQueue(_ context.Context, h *house) (proof string, err error) {
	err = h.atQueue(func(ch *amqp.Channel, name string) error {
		n, err := ch.QueueDelete(name, false, false, false)
		if err != nil {
			return err
		}
		proof = fmt.Sprintf("%s deleted with %d messages", name, n)
		if _, err := ch.QueueDeclarePassive(name, true, false, false, false, nil); err == nil {
			proof += ", and declared anew at once"
		}
		return nil
	})
	return proof, err
}
