package relay

import (
	"context"
	"time"
)

// RunOnce is one pass.
func RunOnce(ctx context.Context, r *Relay) (Counts, error) { return r.runOnce(ctx) }

// ForgetList lets the next pass read the list of sales.
func ForgetList(r *Relay) { r.listed = time.Time{} }
