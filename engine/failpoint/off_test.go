//go:build !failpoint

package failpoint_test

import (
	"strings"
	"testing"

	"github.com/doorbuster/doorbuster/engine/failpoint"
)

func TestNothingIsCompiledIn(t *testing.T) {
	t.Parallel()
	if failpoint.Enabled {
		t.Error("enabled without the tag")
	}
	if err := failpoint.Arm(""); err != nil {
		t.Error(err)
	}
	if err := failpoint.Arm("door/after-reserve=kill"); err == nil || !strings.Contains(err.Error(), "-tags failpoint") {
		t.Errorf("armed without the tag: %v", err)
	}
	failpoint.Hit("door/after-reserve") // and we are still here
}
