package ledger_test

import (
	"testing"

	"github.com/doorbuster/doorbuster/engine/backing/backingtest"
)

// To write it anew: UPDATE=1 go test ./payment/ledger -run Schema
func TestSchemaIsTheOneInGit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	backingtest.Schema(t, b.pool.Config().ConnString(), "testdata/schema.txt")
}
