package sandbox

// fate is what the script does to a call.
type fate int

const (
	fine fate = iota
	timeoutStored
	timeoutLost
	errorStored
	errorLost
	throttled
)

// fateOf chooses by seed and call, which is operation and key.
func (s *Script) fateOf(call string) fate {
	n := s.draw("fault", call)
	for _, f := range [...]struct {
		fate     fate
		perMille int
	}{
		{timeoutStored, s.TimeoutStoredPerMille},
		{timeoutLost, s.TimeoutLostPerMille},
		{errorStored, s.ErrorStoredPerMille},
		{errorLost, s.ErrorLostPerMille},
		{throttled, s.ThrottlePerMille},
	} {
		if n < f.perMille {
			return f.fate
		}
		n -= f.perMille
	}
	return fine
}

// Declines tells whether the script declines the key.
func (s *Script) Declines(key string) bool { return s.draw("decline", key) < s.DeclinePerMille }

// RefusesCapture tells whether the script refuses to capture the key.
func (s *Script) RefusesCapture(key string) bool {
	return s.draw("refuse", key) < s.CaptureRefusedPerMille
}

// draw returns a number in [0, 1000): FNV-1a over the parts, then the finaliser of
// SplitMix64 (Steele, Lea, Flood 2014), because the low bits of FNV-1a of keys that
// differ in their last byte are not independent.
func (s *Script) draw(what, key string) int {
	h := uint64(14695981039346656037) ^ s.Seed
	for _, part := range [...]string{what, key} {
		for i := range len(part) {
			h = (h ^ uint64(part[i])) * 1099511628211
		}
		h *= 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return int((h ^ h>>31) % 1000)
}
