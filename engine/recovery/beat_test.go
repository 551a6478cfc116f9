package recovery_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/recovery"
	"github.com/doorbuster/doorbuster/stock"
)

type answeredPulse struct{ err error }

func (p answeredPulse) Beat(context.Context, engine.SaleID, int64) error { return p.err }

// A heartbeat begins the wait for leases anew, unless it is certain that no door saw it;
// and one that found no state is reason to look at once.
func TestBeatThatNobodySaw(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err             error
		counts, doubted bool
	}{
		"raised":             {nil, true, false},
		"perhaps raised":     {context.DeadlineExceeded, true, false},
		"nobody to raise it": {&net.OpError{Op: "dial", Err: io.EOF}, false, false},
		"no such state":      {fmt.Errorf("beat: %w", stock.ErrNoSale), false, true},
	} {
		if counts, doubted := recovery.BeatOnce(answeredPulse{c.err}); counts != c.counts || doubted != c.doubted {
			t.Errorf("%s: counts %v, doubted %v", name, counts, doubted)
		}
	}
}
