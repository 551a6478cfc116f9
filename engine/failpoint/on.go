//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Enabled tells whether the points are compiled in.
const Enabled = true

// charge is an armed point.
type charge struct {
	Setting
	hits atomic.Int64
}

// armed is replaced as a whole by Arm and read only by Hit.
var armed atomic.Pointer[map[string]*charge]

// Arm says what happens where, in place of what was said before; see Parse. It
// counts hits from now on.
func Arm(text string) error {
	settings, err := Parse(text)
	if err != nil {
		return err
	}
	charges := make(map[string]*charge, len(settings))
	for _, s := range settings {
		charges[s.Name] = &charge{Setting: s}
	}
	armed.Store(&charges)
	return nil
}

// Hit does what was said about the point. After a kill it does not return; after a
// stop it returns when somebody continues the process.
func Hit(name string) {
	charges := armed.Load()
	if charges == nil {
		return
	}
	c := (*charges)[name]
	if c == nil {
		return
	}
	n := c.hits.Add(1)
	if c.Setting.Hit != 0 && n != c.Setting.Hit {
		return
	}
	fmt.Fprintf(os.Stderr, `{"level":"WARN","msg":"failpoint","point":%q,"hit":%d,"do":%q}`+"\n", name, n, c.Do)
	switch c.Do {
	case Kill:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // to oneself, always allowed
		select {}                                      // nothing behind the point is done while the signal is on its way
	case Stop:
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case Delay:
		time.Sleep(c.Delay)
	}
}
