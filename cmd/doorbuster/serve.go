package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/doorbuster/doorbuster/engine/failpoint"
)

// Roles of a server.
const (
	roleDoor     = "door"
	roleStatus   = "status"
	roleRelay    = "relay"
	roleWorker   = "worker"
	roleRecovery = "recovery"
)

var allRoles = []string{roleDoor, roleStatus, roleRelay, roleWorker, roleRecovery}

// ServeCmd serves.
type ServeCmd struct {
	JSON        JSONFlag      `help:"Print JSON." name:"json"`
	Roles       []string      `help:"Roles to serve: door, status, relay, worker, recovery; or all." default:"all" env:"DOORBUSTER_ROLES"`
	Listen      string        `help:"Address of the HTTP API (door, status)." default:"127.0.0.1:8080" env:"DOORBUSTER_LISTEN"`
	Metrics     string        `help:"Address of /metrics, /healthz and /debug/pprof; empty for none." default:"127.0.0.1:9090" env:"DOORBUSTER_METRICS"`
	Sandbox     string        `help:"URL of the sandbox payment provider; empty for none." env:"SANDBOX_URL" placeholder:"URL"`
	MaxConns    int           `help:"Open connections at most." default:"50000"`
	Drain       time.Duration `help:"How long SIGTERM waits for requests and messages in hand." default:"10s"`
	GateMax     int           `help:"Requests of a sale in flight at most, before the gate adapts; 0 leaves it to the door." default:"0"`
	BuyerRate   float64       `help:"Requests per second of one buyer that go past the door's memory; 0 leaves it to the door." default:"0"`
	BuyerBurst  int           `help:"Of them at once; 0 leaves it to the door." default:"0"`
	GroupOfOne  bool          `help:"One script call and one message per request: the baseline of the benchmark." hidden:""`
	GiveWay     bool          `help:"The worker shares its machine with a door: it holds ingest of a queue, of all sales in it, back for up to 8 s while one of them storms. Always so if this process serves both roles." env:"DOORBUSTER_GIVE_WAY"`
	NoMigration bool          `help:"Do not bring tables and queues to this version first." name:"no-migrate"`
}

// Run serves until ctx ends, then drains.
func (c *ServeCmd) Run(ctx context.Context, g *Globals) error {
	if err := failpoint.Arm(os.Getenv("DOORBUSTER_FAILPOINTS")); err != nil {
		return err
	}
	roles, err := parseRoles(c.Roles)
	if err != nil {
		return err
	}
	b, err := g.backends()
	if err != nil {
		return err
	}
	if !c.NoMigration {
		if err := migrate(ctx, b); err != nil {
			return err
		}
	}
	p, err := newProgram(ctx, c, programConfig{Roles: roles, Backends: b, Globals: g})
	if err != nil {
		return err
	}
	at := servingAt{Roles: roles, URL: httpURL(p.Addr()), Metrics: httpURL(p.MetricsAddr())}
	if err := g.say(at, "serving %s at %s, metrics at %s\n", strings.Join(roles, ","), at.URL, at.Metrics); err != nil {
		return err
	}
	return p.Run(ctx)
}

// servingAt is what a server says when it is ready, as one line of JSON if asked.
type servingAt struct {
	Roles   []string `json:"roles,omitempty"`
	URL     string   `json:"url"`
	Metrics string   `json:"metrics,omitempty"`
}

func httpURL(addr string) string {
	if addr == "" {
		return ""
	}
	return "http://" + addr
}

func parseRoles(names []string) ([]string, error) {
	var roles []string
	for _, name := range names {
		switch {
		case name == "all":
			roles = append(roles, allRoles...)
		case slices.Contains(allRoles, name):
			roles = append(roles, name)
		default:
			return nil, fmt.Errorf("--roles: %q is none of %s, all", name, strings.Join(allRoles, ", "))
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles), nil
}
