package backing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/doorbuster/doorbuster/deploy"
)

const composeFile = "compose.yaml"

// containers runs services by Docker Compose, under a project name of this
// installation's own.
type containers struct {
	dir   string // of the state: holds compose.yaml
	state *state
	m     machine
}

// compose runs `docker compose` with args.
func (c containers) compose(ctx context.Context, args ...string) error {
	file := filepath.Join(c.dir, composeFile)
	if err := os.WriteFile(file, deploy.Compose, 0o644); err != nil {
		return err
	}
	var out bytes.Buffer
	full := append([]string{"docker", "compose", "-p", "doorbuster-" + c.state.ID, "-f", file, "--profile", "monitoring"}, args...)
	if err := c.m.run(ctx, &out, c.environment(), full...); err != nil {
		return fmt.Errorf("docker compose %s: %w\n%s", args[0], err, lastBytes(out.Bytes()))
	}
	return nil
}

// environment sets the variables of compose.yaml.
func (c containers) environment() []string {
	env := []string{"DOORBUSTER_PASSWORD=" + c.state.Password}
	variable := map[Name]string{Redis: "REDIS", RabbitMQ: "RABBITMQ", PostgreSQL: "POSTGRESQL", Prometheus: "PROMETHEUS"}
	for name, r := range c.state.Services {
		if r.Mode != Compose {
			continue
		}
		env = append(env, fmt.Sprintf("DOORBUSTER_%s_PORT=%d", variable[name], r.Ports[portMain]))
		switch name {
		case Redis:
			env = append(env, "DOORBUSTER_FSYNC="+r.Fsync, fmt.Sprintf("DOORBUSTER_REDIS_MEMORY=%d", r.Memory))
		case Prometheus:
			env = append(env, "DOORBUSTER_PROMETHEUS_CONFIG="+filepath.Join(c.dir, string(Prometheus), configDir))
		}
	}
	return env
}

func (c containers) start(ctx context.Context, name Name) error {
	return c.compose(ctx, "up", "-d", "--no-deps", string(name))
}

func (c containers) kill(ctx context.Context, name Name) error {
	return c.compose(ctx, "kill", string(name))
}

// stop leaves container and data for the next start.
func (c containers) stop(ctx context.Context, name Name) error {
	return c.compose(ctx, "stop", string(name))
}

// wipe removes the container and the volume its image declares.
func (c containers) wipe(ctx context.Context, name Name) error {
	return c.compose(ctx, "rm", "--force", "--stop", "--volumes", string(name))
}

// remove takes away all that Compose made for this installation.
func (c containers) remove(ctx context.Context) error {
	return c.compose(ctx, "down", "--volumes")
}

// prepareFiles writes what a container reads from outside: Prometheus' files.
// They are readable to all, as the container's user is not one of this machine.
func (c containers) prepareFiles(ctx context.Context, k *kind, s site) error {
	if k.name != Prometheus {
		return nil
	}
	if err := k.prepare(ctx, s); err != nil {
		return err
	}
	return errors.Join(os.Chmod(s.dir, 0o755), filepath.WalkDir(filepath.Join(s.dir, configDir), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	}))
}
