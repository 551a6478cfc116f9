package backing

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitMQ needs a node name (quorum queues do), a node name needs Erlang's port
// mapper, and RabbitMQ starts one as a daemon that outlives it. So we start our
// own first, in the foreground, on a port of its own; it goes with the broker.
const (
	portMapper = "mapper"
	portNode   = "node" // Erlang distribution

	rabbitUser = "doorbuster"
	// diskFree is how much disk must be free before RabbitMQ blocks publishers.
	// It is about what one full log segment needs; the default, 50 MB, is less.
	diskFree = "200MB"
	// maxSchedulers bounds Erlang's threads. More than this on a large machine
	// only makes them wait for one another in a one-node broker.
	maxSchedulers = 8
)

var rabbitKind = kind{
	name:     RabbitMQ,
	accounts: []string{"rabbitmq"}, // it reads its Erlang cookie only if it owns it
	programs: []string{"rabbitmq-server", "epmd", "erl"},
	ports:    []string{portMain, portMapper, portNode},
	quit:     syscall.SIGTERM,
	boot:     120 * time.Second,
	prepare:  prepareRabbit,
	commands: rabbitCommands,
	url: func(s site) string {
		u := url.URL{Scheme: "amqp", User: url.UserPassword(rabbitUser, s.password), Host: s.address(), Path: "/"}
		return u.String()
	},
	ping: pingRabbit,
}

// prepareRabbit writes the configuration. The user is made on the first boot of
// an empty database, with our password; there is no guest.
func prepareRabbit(_ context.Context, s site) error {
	for _, dir := range []string{s.dataDir(), filepath.Join(s.dir, "log")} {
		if err := s.who.makeDir(dir); err != nil {
			return err
		}
	}
	conf := []string{
		"listeners.tcp.local = " + s.address(),
		"default_user = " + rabbitUser,
		"default_pass = " + s.password,
		"default_permissions.configure = .*",
		"default_permissions.read = .*",
		"default_permissions.write = .*",
		"disk_free_limit.absolute = " + diskFree,
		"log.console = false",
	}
	files := map[string]string{
		"rabbitmq.conf":   strings.Join(conf, "\n") + "\n",
		"enabled_plugins": "[].\n", // no management: it costs a second of boot and much memory
		"advanced.config": "[].\n", // the host's must not be read
		"rabbitmq-env.sh": "# Empty: the host's own is not read.\n",
		".erlang.cookie":  s.password, // Erlang wants it readable by its owner alone
	}
	for name, content := range files {
		if err := s.who.writeFile(filepath.Join(s.dir, name), []byte(content)); err != nil {
			return err
		}
	}
	return nil
}

func rabbitCommands(s site) []command {
	at := func(name string) string { return filepath.Join(s.dir, name) }
	mapper := fmt.Sprint(s.ports[portMapper])
	cores := min(runtime.NumCPU(), maxSchedulers)
	env := s.environment(
		"ERL_EPMD_PORT="+mapper,
		"ERL_EPMD_ADDRESS="+loopback,
		"ERL_CRASH_DUMP_BYTES=0", // a gigabyte for nobody to read
		"RABBITMQ_NODENAME=doorbuster-"+s.id+"@localhost",
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", s.ports[portNode]),
		"RABBITMQ_CONF_ENV_FILE="+at("rabbitmq-env.sh"),
		"RABBITMQ_CONFIG_FILE="+at("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+at("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+at("enabled_plugins"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+at("data/config"),
		"RABBITMQ_MNESIA_BASE="+s.dataDir(),
		"RABBITMQ_LOG_BASE="+at("log"),
		"RABBITMQ_PID_FILE="+at("pid"),
		// Unbound schedulers that do not spin: RabbitMQ binds each to a core and
		// supposes that the core is its own. Here it shares them with everyone.
		"RABBITMQ_SCHEDULER_BIND_TYPE=u",
		"RABBITMQ_SCHEDULER_BUSY_WAIT_THRESHOLD=none",
		fmt.Sprintf("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S %d:%d -kernel inet_dist_use_interface {127,0,0,1}", cores, cores),
	)
	return []command{
		{role: roleMapper, path: s.programs["epmd"], args: []string{"-port", mapper, "-address", loopback}, env: env, dir: s.dir, listen: s.ports[portMapper]},
		{role: roleServer, path: s.programs["rabbitmq-server"], env: env, dir: s.dir},
	}
}

// pingRabbit opens a connection and a channel: the listener opens before the
// broker can do that.
func pingRabbit(ctx context.Context, rawURL string) error {
	deadline := time.Now().Add(pingTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	conn, err := amqp.DialConfig(rawURL, amqp.Config{
		Dial: func(network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return c, c.SetDeadline(deadline) // the library lifts it after the handshake
		},
	})
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseDeadline(deadline) }()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return ch.Close()
}
