package backingtest

import (
	"testing"
	"time"
)

// waitMost is far above what anything here takes on a busy machine.
const waitMost = 30 * time.Second

// Eventually polls until ok, and fails the test after 30 s. It is for what a real
// server does and gives no signal of.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitMost); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", waitMost, what)
		}
	}
}
