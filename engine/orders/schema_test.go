package orders_test

import (
	"context"
	"testing"

	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
	"github.com/doorbuster/doorbuster/engine/orders"
)

// To write it anew: UPDATE=1 go test ./engine/orders -run Schema
func TestSchemaIsTheOneInGit(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ok(orders.Migrate(context.Background(), b.url)) // again: changes nothing
	backingtest.Schema(t, b.url, "testdata/schema.txt")
}
