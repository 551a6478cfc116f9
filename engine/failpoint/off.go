//go:build !failpoint

package failpoint

import "errors"

// Enabled tells whether the points are compiled in.
const Enabled = false

// Hit does nothing.
func Hit(string) {}

// Arm refuses every setting but the empty one: the points are not compiled in.
func Arm(text string) error {
	if text != "" {
		return errors.New("failpoints are set, and this binary has none: build it with -tags failpoint, or unset DOORBUSTER_FAILPOINTS")
	}
	return nil
}
