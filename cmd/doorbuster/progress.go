package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/doorbuster/doorbuster/loadtest"
)

// plainEvery is how often a line is printed where the terminal cannot redraw one.
const plainEvery = time.Second

// progress shows a crowd: one line redrawn on a terminal, a line a second
// elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	last     time.Time
	before   loadtest.Snapshot
	drawn    bool
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// snapshot shows where the crowd stands.
func (p *progress) snapshot(s loadtest.Snapshot) {
	now := time.Now()
	opened := p.before.SinceOpen < 0 && s.SinceOpen >= 0
	if !p.terminal && now.Sub(p.last) < plainEvery && !opened {
		return
	}
	line := countdown(s)
	if s.SinceOpen >= 0 {
		perSecond := 0.0
		if dt := s.SinceOpen - p.before.SinceOpen; dt > 0 {
			perSecond = float64(s.Requests-p.before.Requests) / dt.Seconds()
		}
		line = fmt.Sprintf("%5.1f s  accepted %6d  sold out %7d  confirmed %6d  restocked %4d  waiting %6d  %7.0f answers/s",
			s.SinceOpen.Seconds(), s.Accepted, s.SoldOut, s.Sold, restocked(s), s.Waiting, perSecond)
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(p.w, line)
	}
	p.last, p.before, p.drawn = now, s, true
}

func countdown(s loadtest.Snapshot) string {
	return fmt.Sprintf("opens in %.1f s", -s.SinceOpen.Seconds())
}

// restocked is how many units came back: accepted once, and now neither held nor
// sold. Every order of the demo is one unit.
func restocked(s loadtest.Snapshot) int64 {
	if s.Held+s.Sold == 0 {
		return 0 // the page is older than the answers
	}
	return max(0, s.Accepted-s.Held-s.Sold)
}

// end leaves the last line standing.
func (p *progress) end() {
	if p.terminal && p.drawn {
		fmt.Fprintln(p.w)
	}
}
