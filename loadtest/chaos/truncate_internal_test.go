package chaos

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTruncate cuts a log where its stamps say.
func TestTruncate(t *testing.T) {
	t.Parallel()
	const log = "#TS:100\r\n*1\r\n$1\r\na\r\n#TS:101\r\n*1\r\n$1\r\nb\r\n#TS:102\r\n*1\r\n$1\r\nc\r\n"
	for _, c := range []struct {
		lost time.Duration
		kept string
	}{
		{time.Second, log[:bytes.Index([]byte(log), []byte("#TS:102"))]},
		{2 * time.Second, log[:bytes.Index([]byte(log), []byte("#TS:101"))]},
	} {
		dir := t.TempDir()
		old, file := filepath.Join(dir, "appendonly.aof.9.incr.aof"), filepath.Join(dir, "appendonly.aof.10.incr.aof")
		for _, f := range []string{old, file} {
			if err := os.WriteFile(f, []byte(log), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cut, kept, err := truncate(dir, c.lost)
		b, rerr := os.ReadFile(file)
		if err != nil || rerr != nil || string(b) != c.kept || kept != len(c.kept) || cut != len(log)-kept {
			t.Errorf("%s: %q, cut %d, kept %d, %v %v; want %q", c.lost, b, cut, kept, err, rerr, c.kept)
		}
		if b, _ := os.ReadFile(old); string(b) != log {
			t.Error("an older log was cut")
		}
	}
	if _, _, err := truncate(t.TempDir(), time.Second); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}
