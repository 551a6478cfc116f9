package backing_test

import (
	"net/url"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
)

// TestEnvAndPassword: a server sees what Env says, in place of what it would see, and
// the password of a new directory is the one that was asked for.
func TestEnvAndPassword(t *testing.T) {
	t.Parallel()
	s := bringUp(t, backing.Config{
		Dir: t.TempDir(), URLs: backing.URLs{Redis: backingtest.RedisURL(t), Database: backingtest.Database(t)}, Password: "asked-for",
		Env: map[backing.Name][]string{backing.RabbitMQ: {"RABBITMQ_NODENAME=named-by-env@localhost"}},
	})
	u, err := url.Parse(s.URLs().AMQP)
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := u.User.Password(); p != "asked-for" || s.MapperPort() == 0 {
		t.Errorf("password %q, port mapper at %d", p, s.MapperPort())
	}
	conn, err := amqp.Dial(s.URLs().AMQP)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if name, _ := conn.Properties["cluster_name"].(string); !strings.HasPrefix(name, "named-by-env@") { // behind it is the machine's name
		t.Errorf("the broker's name is %q", name)
	}
}
