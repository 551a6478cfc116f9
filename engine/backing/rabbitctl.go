package backing

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// RabbitEval returns the command that evaluates an Erlang expression in our broker
// (rabbitmqctl eval), as the account the broker runs under. It takes seconds to
// begin, because it boots an Erlang of its own: what must happen at a moment has to
// wait for it in the expression. ErrForeign where the broker is no process of ours.
func (s *Services) RabbitEval(ctx context.Context, expression string) (*exec.Cmd, error) {
	st := s.snapshot()
	r := st.Services[RabbitMQ]
	if r == nil || r.Mode != Own {
		return nil, fmt.Errorf("%s: %w", RabbitMQ, ErrForeign)
	}
	who, err := accountOf(rabbitKind.accounts)
	if err != nil {
		return nil, err
	}
	at := site{
		dir: filepath.Join(st.Data, string(RabbitMQ)), id: st.ID, password: st.Password,
		ports: r.Ports, programs: r.Programs, who: who,
	}
	server := rabbitCommands(at)[1]
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(server.path), "rabbitmqctl"), "eval", expression)
	cmd.Dir = at.dir
	for _, v := range append(server.env, s.cfg.Env[RabbitMQ]...) { // the flags of the server's own virtual machine are not rabbitmqctl's
		if !strings.HasPrefix(v, "RABBITMQ_SERVER_") && !strings.HasPrefix(v, "RABBITMQ_DIST_PORT=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: who.credential()}
	return cmd, nil
}

// MapperPort is the port of our broker's Erlang port mapper, where other brokers must
// be known that are to form a cluster with it (ERL_EPMD_PORT of Config.Env); 0 where
// the broker is no process of ours.
func (s *Services) MapperPort() int {
	if r := s.snapshot().Services[RabbitMQ]; r != nil && r.Mode == Own {
		return r.Ports[portMapper]
	}
	return 0
}
