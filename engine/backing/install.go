package backing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// packages are the names in Debian and Ubuntu.
var packages = map[Name]string{
	Redis: "redis-server", RabbitMQ: "rabbitmq-server", PostgreSQL: "postgresql", Prometheus: "prometheus",
}

// policyFile is asked by Debian's maintainer scripts before they start a
// service (invoke-rc.d(8), deb-systemd-invoke(1)); 101 means no.
const (
	policyFile = "/usr/sbin/policy-rc.d"
	policyDeny = "#!/bin/sh\nexit 101\n"
)

// holdServices makes policyFile say no; a machine that has one keeps its own.
func holdServices() (release func() error, err error) {
	f, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(policyDeny)
	return func() error { return os.Remove(policyFile) }, errors.Join(err, f.Close())
}

// noQuestions keeps apt-get from asking, and Ubuntu's needrestart from
// restarting services of the host.
var noQuestions = []string{"DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1", "RUNLEVEL=1"}

// beside are packages that come with a service: libfaketime gives chaos a Redis
// whose clock is wrong.
var beside = map[Name]string{Redis: "libfaketime"}

func installArgs(kinds []*kind) []string {
	args := []string{"apt-get", "install", "-y", "--no-install-recommends"}
	for _, k := range kinds {
		args = append(args, packages[k.name])
		if p := beside[k.name]; p != "" {
			args = append(args, p)
		}
	}
	return args
}

// installCommand is the one command that a person would run.
func installCommand(kinds []*kind) string {
	return "apt-get update && " + strings.Join(installArgs(kinds), " ")
}

// install installs the packages of kinds from the system's own sources. The
// host's services of the same name are neither started now nor at the next boot:
// only the programs are wanted.
func (m machine) install(ctx context.Context, kinds []*kind, tell func(format string, args ...any)) (err error) {
	tell("installing %s (apt-get, a minute or two)", names(kinds))
	release, err := m.holdServices()
	if err != nil {
		return fmt.Errorf("hold services back: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()

	var out bytes.Buffer
	if err := m.run(ctx, &out, noQuestions, "apt-get", "update"); err != nil {
		tell("apt-get update failed, going on with the lists that are here: %v", err)
	}
	out.Reset()
	steps := &aptLines{tell: tell, all: &out}
	if err := m.run(ctx, steps, noQuestions, installArgs(kinds)...); err != nil {
		return fmt.Errorf("apt-get install: %w\n%s", err, lastBytes(out.Bytes()))
	}
	if m.look("systemctl") != "" && len(m.glob("/run/systemd/system")) > 0 {
		args := []string{"systemctl", "disable", "--quiet"}
		for _, k := range kinds {
			args = append(args, packages[k.name])
		}
		if err := m.run(ctx, &out, nil, args...); err != nil {
			tell("the installed services could not be disabled: %v", err)
		}
	}
	return nil
}

// aptLines passes on the lines by which apt-get says how far it is.
type aptLines struct {
	tell func(format string, args ...any)
	all  *bytes.Buffer
	line []byte
}

// maxAptLine bounds a line that never ends.
const maxAptLine = 4096

// Write never fails.
func (a *aptLines) Write(p []byte) (int, error) {
	a.all.Write(p)
	for _, b := range p {
		if b != '\n' {
			if len(a.line) < maxAptLine {
				a.line = append(a.line, b)
			}
			continue
		}
		for _, said := range []string{"Need to get ", "Unpacking ", "Setting up "} {
			if bytes.HasPrefix(a.line, []byte(said)) {
				a.tell("  %s", a.line)
			}
		}
		a.line = a.line[:0]
	}
	return len(p), nil
}
