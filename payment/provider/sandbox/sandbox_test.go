package sandbox_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/payment/provider"
	"github.com/doorbuster/doorbuster/payment/provider/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const clientTimeout = 150 * time.Millisecond

func start(t *testing.T, script sandbox.Script, file string) (p *provider.HTTP, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sandbox.Serve(ctx, ln, script, file) }()
	p = provider.NewHTTP("http://" + ln.Addr().String()).WithTimeout(clientTimeout)
	var once bool
	stop = func() error {
		if once {
			return nil
		}
		once = true
		p.Close()
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("sandbox: %v", err)
		}
	})
	return p, stop
}

func request(n int) provider.Request {
	id := []byte(strings.Repeat("a", engine.OrderIDLen))
	for i := len(id) - 1; n > 0; i-- {
		id[i] = "abcdefghijklmnopqrstuvwxyz234567"[n%32]
		n /= 32
	}
	order := engine.OrderID(id)
	return provider.Request{Key: provider.Key(order, 1), Order: order, Amount: engine.Money{Amount: 500, Currency: "USD"}}
}

func TestFirstCallFaultsRepeatDoesNot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		script sandbox.Script
		want   error
		stored bool
	}{
		{"time-out that succeeds", sandbox.Script{TimeoutStoredPerMille: 1000}, provider.ErrUnknown, true},
		{"time-out that fails", sandbox.Script{TimeoutLostPerMille: 1000}, provider.ErrUnknown, false},
		{"error that succeeds", sandbox.Script{ErrorStoredPerMille: 1000}, provider.ErrUnknown, true},
		{"error that fails", sandbox.Script{ErrorLostPerMille: 1000}, provider.ErrUnknown, false},
		{"throttled", sandbox.Script{ThrottlePerMille: 1000}, provider.ErrThrottled, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, _ := start(t, c.script, filepath.Join(t.TempDir(), "ledger"))
			r := request(1)
			if _, err := p.Authorise(t.Context(), r); !errors.Is(err, c.want) {
				t.Fatalf("first call: %v", err)
			}
			got, err := p.Lookup(t.Context(), r.Key)
			if stored := err == nil && got.State == provider.StateAuthorised; stored != c.stored {
				t.Errorf("look up: %+v, %v", got, err)
			}
			if a, err := p.Authorise(t.Context(), r); err != nil || a.Outcome != provider.Approved {
				t.Errorf("repeat: %+v, %v", a, err)
			}
			if err := p.Capture(t.Context(), r.Key, r.Amount); !errors.Is(err, c.want) {
				t.Errorf("first capture: %v", err)
			}
			if err := p.Capture(t.Context(), r.Key, r.Amount); err != nil {
				t.Errorf("second capture: %v", err)
			}
			if got, err := p.Lookup(t.Context(), r.Key); err != nil || got.State != provider.StateCaptured || got.Captured != 500 {
				t.Errorf("look up: %+v, %v", got, err)
			}
		})
	}
}

func TestCaptureRefusedIsRefusedForGood(t *testing.T) {
	t.Parallel()
	p, _ := start(t, sandbox.Script{CaptureRefusedPerMille: 1000}, filepath.Join(t.TempDir(), "ledger"))
	r := request(1)
	if _, err := p.Authorise(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Capture(t.Context(), r.Key, r.Amount); !errors.Is(err, provider.ErrRefused) {
			t.Errorf("capture: %v", err)
		}
	}
	if err := p.Void(t.Context(), r.Key); err != nil {
		t.Errorf("void: %v", err)
	}
}

// The same seed treats the same keys alike in every process, and the shares are
// about what the script says.
func TestSeedDecides(t *testing.T) {
	t.Parallel()
	const keys = 20_000
	a, b, other := sandbox.Script{Seed: 1, DeclinePerMille: 30}, sandbox.Script{Seed: 1, DeclinePerMille: 30}, sandbox.Script{Seed: 2, DeclinePerMille: 30}
	declined, differ := 0, 0
	for n := range keys {
		key := request(n).Key
		if a.Declines(key) != b.Declines(key) {
			t.Fatalf("%s: same seed, another answer", key)
		}
		if a.Declines(key) {
			declined++
		}
		if a.Declines(key) != other.Declines(key) {
			differ++
		}
	}
	if declined < keys*25/1000 || declined > keys*35/1000 {
		t.Errorf("%d of %d declined, want about 3 %%", declined, keys)
	}
	if differ == 0 {
		t.Error("another seed, the same keys")
	}
}

// What was answered is there after kill -9: the next process reads the file, also
// where its last line was cut off in the middle.
func TestLedgerIsReplayed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ledger")
	p, stop := start(t, sandbox.Script{}, file)
	captured, voided, refunded, closed := request(1), request(2), request(3), request(4)
	for _, r := range []provider.Request{captured, voided, refunded} {
		if _, err := p.Authorise(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(p.Capture(t.Context(), captured.Key, captured.Amount))
	must(p.Void(t.Context(), voided.Key))
	must(p.Void(t.Context(), closed.Key))
	must(p.Capture(t.Context(), refunded.Key, refunded.Amount))
	must(p.Refund(t.Context(), refunded.Key, "r", engine.Money{Amount: 200, Currency: "USD"}))
	before := ledger(t, p)
	must(stop())

	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	must(err)
	_, err = f.WriteString("1V|" + captured.Key) // no line break: never answered
	must(err)
	must(f.Close())

	p, stop = start(t, sandbox.Script{}, file)
	if after := ledger(t, p); len(after) != 4 || len(after) != len(before) {
		t.Errorf("%d charges, before %d", len(after), len(before))
	} else {
		for k, c := range before {
			if after[k] != c {
				t.Errorf("after %+v, before %+v", after[k], c)
			}
		}
	}
	must(p.Refund(t.Context(), refunded.Key, "r", engine.Money{Amount: 200, Currency: "USD"})) // the same one
	must(p.Refund(t.Context(), refunded.Key, "s", engine.Money{Amount: 300, Currency: "USD"}))
	must(stop())

	p, _ = start(t, sandbox.Script{}, file)
	if c := ledger(t, p)[refunded.Key]; c.State != provider.StateRefunded || c.Refunded != 500 {
		t.Errorf("%+v", c)
	}
}

func ledger(t *testing.T, p *provider.HTTP) map[string]provider.Charge {
	t.Helper()
	all := make(map[string]provider.Charge)
	for c, err := range p.Ledger(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all[c.Key] = c
	}
	return all
}

func TestServeRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("1C|nobody|5|USD\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(dir, "shared")
	p, _ := start(t, sandbox.Script{}, shared)
	if _, err := p.Authorise(t.Context(), request(1)); err != nil { // it has the file now
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		script sandbox.Script
		file   string
	}{
		"share below 0":          {sandbox.Script{DeclinePerMille: -1}, filepath.Join(dir, "a")},
		"faults above all":       {sandbox.Script{TimeoutLostPerMille: 600, ThrottlePerMille: 600}, filepath.Join(dir, "a")},
		"no such directory":      {sandbox.Script{}, filepath.Join(dir, "no", "ledger")},
		"ledger of no sense":     {sandbox.Script{}, broken},
		"ledger of another's":    {sandbox.Script{}, shared},
		"negative latency":       {sandbox.Script{Latency: -1}, filepath.Join(dir, "a")},
		"declines above a whole": {sandbox.Script{DeclinePerMille: 1001}, filepath.Join(dir, "a")},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := sandbox.Serve(t.Context(), ln, c.script, c.file); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := net.DialTimeout("tcp", ln.Addr().String(), time.Second); err == nil {
			t.Errorf("%s: listener left open", name)
		}
	}
}

func TestBadRequestsAreNotWritten(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ledger")
	p, _ := start(t, sandbox.Script{}, file)
	good := request(1)
	for _, change := range []func(*provider.Request){
		func(r *provider.Request) { r.Key = "a|b\n1V|c" },
		func(r *provider.Request) { r.Key = "" },
		func(r *provider.Request) { r.Amount.Amount = -1 },
		func(r *provider.Request) { r.Amount.Currency = "usd|" },
		func(r *provider.Request) { r.Order = "" },
		func(r *provider.Request) { r.Order = engine.OrderID(strings.Repeat("x", 5000)) },
	} {
		r := good
		change(&r)
		if _, err := p.Authorise(t.Context(), r); err == nil {
			t.Errorf("%+v: no error", r)
		}
	}
	if b, err := os.ReadFile(file); err != nil || len(b) != 0 {
		t.Errorf("ledger %q, %v", b, err)
	}
}
