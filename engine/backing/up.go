package backing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Up brings up what cfg asks for and returns when every server has answered in
// its own protocol. What already runs is left alone, so a second call is
// harmless; a Redis that ran on another Fsync is told the new one. On failure,
// what did come up stays up: Up can be called again, or Open and Down.
func Up(ctx context.Context, cfg Config) (*Services, error) { return upOn(ctx, cfg, thisMachine()) }

func upOn(ctx context.Context, cfg Config, m machine) (*Services, error) {
	s, err := open(cfg, m)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, s.cfg.Dir, lockSetup)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.plan(ctx); err != nil {
		return nil, err
	}
	if err := s.startAll(ctx); err != nil {
		return nil, err
	}
	return s, s.reload()
}

// plan writes into state.json what each service is to be: given, a process, or a
// container; and where the data lies.
func (s *Services) plan(ctx context.Context) error {
	st, err := readState(s.cfg.Dir)
	if errors.Is(err, ErrNotUp) {
		st = newState("")
		if s.cfg.Password != "" {
			st.Password = s.cfg.Password
		}
		err = st.write(s.cfg.Dir)
	}
	if err != nil {
		return err
	}
	given := map[Name]string{Redis: s.cfg.URLs.Redis, RabbitMQ: s.cfg.URLs.AMQP, PostgreSQL: s.cfg.URLs.Database, Prometheus: s.cfg.URLs.Prometheus}
	var search []*kind
	for _, name := range order {
		r := st.Services[name]
		if r != nil && r.Mode != Given && r.URL == given[name] {
			given[name] = "" // it is ours: the caller's shell has the variables of an earlier up
		}
		switch {
		case given[name] != "":
		case name == Prometheus && !s.cfg.Monitoring && r == nil:
		case r != nil && r.running():
		default:
			search = append(search, kinds[name])
		}
	}
	found, err := s.m.provide(ctx, search, s.cfg.NoInstall, s.tell)
	if err != nil {
		return err
	}
	if err := s.replaceByGiven(ctx, given); err != nil {
		return err
	}
	return update(ctx, s.cfg.Dir, func(st *state) error { return s.settlePlan(st, found) })
}

// running says that the service's process runs, or that its container may.
func (r *record) running() bool {
	return r.Mode == Compose || r.Mode == Own && r.Processes[roleServer].alive()
}

// replaceByGiven records the servers that the caller named, and stops ours of
// that name.
func (s *Services) replaceByGiven(ctx context.Context, given map[Name]string) error {
	for _, name := range order {
		rawURL := given[name]
		if rawURL == "" {
			continue
		}
		err := s.one(ctx, name, func(st *state, r *record) error { return s.stop(ctx, st, name, r) })
		if err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrForeign) {
			return err
		}
		err = update(ctx, s.cfg.Dir, func(st *state) error {
			st.Services[name] = &record{Mode: Given, URL: rawURL}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settlePlan gives what was found a record, ports and a place for its data.
func (s *Services) settlePlan(st *state, found []want) error {
	if err := s.placeData(st, found); err != nil {
		return err
	}
	for _, w := range found {
		r := st.Services[w.kind.name]
		if r == nil || r.Mode == Given {
			r = &record{}
			st.Services[w.kind.name] = r
		}
		r.Mode, r.Programs = w.mode, w.programs
		if err := st.choosePorts(r, w.kind.ports); err != nil {
			return err
		}
		r.URL = w.kind.url(site{ports: r.Ports, password: st.Password})
	}
	if r := st.Services[Redis]; r != nil && r.Mode != Given {
		r.Memory = s.cfg.RedisMemory
		switch {
		case s.cfg.Fsync != "":
			r.Fsync = s.cfg.Fsync
		case r.Fsync == "":
			r.Fsync = FsyncDefault
		}
	}
	return nil
}

// placeData chooses where the data lies, once: later only if it has gone, as a
// temporary directory may with a reboot.
func (s *Services) placeData(st *state, found []want) error {
	if st.Data != "" {
		if _, err := os.Stat(st.Data); err == nil {
			return nil
		}
	}
	var who []account
	for _, w := range found {
		if w.mode != Own {
			continue
		}
		a, err := accountOf(w.kind.accounts)
		if err != nil {
			return err
		}
		who = append(who, a)
	}
	root, err := dataRoot(s.cfg.Dir, who)
	if err != nil {
		return err
	}
	if root != s.cfg.Dir {
		s.tell("the servers' accounts cannot reach %s: data lies in %s", s.cfg.Dir, root)
	}
	st.Data = root
	return nil
}

// startAll starts every service side by side.
func (s *Services) startAll(ctx context.Context) error {
	errs := make([]error, len(order))
	var wg sync.WaitGroup
	for i, name := range order {
		wg.Go(func() {
			err := s.one(ctx, name, func(st *state, _ *record) error { return s.start(ctx, st, name) })
			switch {
			case errors.Is(err, ErrForeign):
				errs[i] = s.greet(ctx, name)
			case !errors.Is(err, ErrUnknown):
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// greet makes sure that a server that was named by its URL is there.
func (s *Services) greet(ctx context.Context, name Name) error {
	st, err := readState(s.cfg.Dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	rawURL := st.Services[name].URL
	if err := kinds[name].ping(ctx, rawURL); err != nil {
		return fmt.Errorf("%s at %s does not answer: %w", name, hostPort(rawURL), err)
	}
	s.tell("%s: given, at %s", name, hostPort(rawURL))
	return nil
}

// start starts one service if it does not run, and waits until it answers. The
// caller holds the service's lock.
func (s *Services) start(ctx context.Context, st *state, name Name) error {
	k, r := kinds[name], st.Services[name]
	at := site{
		dir: filepath.Join(st.Data, string(name)), id: st.ID, password: st.Password, ports: r.Ports,
		programs: r.Programs, fsync: r.Fsync, memory: r.Memory, boards: s.cfg.Dashboards,
	}
	begun := time.Now()
	if r.Mode == Compose {
		at.dir = filepath.Join(s.cfg.Dir, string(name))
		c := s.containers(st)
		if err := errors.Join(c.prepareFiles(ctx, k, at), c.start(ctx, name)); err != nil {
			return err
		}
		return s.await(ctx, k, at, process{})
	}
	was := r.Processes[roleServer].alive()
	p, err := s.launchAll(ctx, k, r, &at)
	if err == nil {
		err = s.await(ctx, k, at, p)
	}
	if err != nil && !was { // whole or not at all
		return errors.Join(err, s.stop(context.WithoutCancel(ctx), st, name, r))
	}
	if err != nil {
		return err
	}
	if was {
		s.tell("%s: runs already, at %s", name, at.address())
	} else {
		s.tell("%s: up after %.1f s, at %s", name, time.Since(begun).Seconds(), at.address())
	}
	return nil
}

// launchAll starts those processes of a service that do not run, and returns the
// server's.
func (s *Services) launchAll(ctx context.Context, k *kind, r *record, at *site) (process, error) {
	var err error
	if at.who, err = accountOf(k.accounts); err != nil {
		return process{}, err
	}
	if err := errors.Join(at.who.makeDir(at.dir), k.prepare(ctx, *at)); err != nil {
		return process{}, fmt.Errorf("prepare: %w", err)
	}
	for _, cmd := range k.commands(*at) {
		cmd.env = append(cmd.env, s.cfg.Env[k.name]...)
		if r.Processes[cmd.role].alive() {
			continue
		}
		p, err := launch(cmd, at.who)
		if err != nil {
			return process{}, err
		}
		if r.Processes == nil {
			r.Processes = map[string]process{}
		}
		r.Processes[cmd.role] = p
		// Not under ctx: what runs must be in the file, whatever the caller wants.
		err = update(context.WithoutCancel(ctx), s.cfg.Dir, func(st *state) error {
			st.Services[k.name].Processes = r.Processes
			return nil
		})
		if err != nil {
			return process{}, errors.Join(err, p.end(context.WithoutCancel(ctx), k.quit, stopGrace))
		}
		if cmd.listen != 0 {
			if err := awaitListen(ctx, cmd.listen, p); err != nil {
				return process{}, fmt.Errorf("%w: %s", err, tail(filepath.Join(cmd.dir, outputFile)))
			}
		}
	}
	return r.Processes[roleServer], nil
}

// awaitListen waits until p accepts connections on port.
func awaitListen(ctx context.Context, port int, p process) error {
	ctx, cancel := context.WithTimeout(ctx, listenTimeout)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address(port))
		if err == nil {
			return conn.Close()
		}
		if !p.alive() {
			return fmt.Errorf("it ended before it listened on port %d", port)
		}
		if pause(ctx) != nil {
			return fmt.Errorf("it does not listen on port %d: %w", port, err)
		}
	}
}

// await pings a server until it answers, and settles it then. It gives up when
// the server's process ends, or its time to boot.
func (s *Services) await(ctx context.Context, k *kind, at site, p process) error {
	ctx, cancel := context.WithTimeout(ctx, k.boot)
	defer cancel()
	for {
		ping, stop := context.WithTimeout(ctx, pingTimeout)
		err := k.ping(ping, k.url(at))
		stop()
		if err == nil {
			break
		}
		if p.PID != 0 && !p.alive() {
			return fmt.Errorf("it ended while starting: %s", tail(filepath.Join(at.dir, outputFile)))
		}
		if pause(ctx) != nil {
			return fmt.Errorf("no answer within %s: %w", k.boot, err)
		}
	}
	if k.settle == nil {
		return nil
	}
	return k.settle(ctx, at)
}
