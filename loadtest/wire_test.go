package loadtest_test

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doorbuster/doorbuster/engine"
	"github.com/doorbuster/doorbuster/engine/ticket"
	"github.com/doorbuster/doorbuster/loadtest"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	const id = "abcdefghijklmnopqrstuvwxyz"
	for _, c := range []struct {
		status int
		body   string
		want   loadtest.Verdict
	}{
		{202, `{"order":"` + id + `","sale":"drop","status":"accepted","hold":"3.17"}`, loadtest.Verdict{Class: loadtest.Accepted, Type: "accepted", Order: id}},
		{202, `{"order":"` + id + `","status":"accepted","replayed":true}`, loadtest.Verdict{Class: loadtest.Replayed, Type: "accepted", Order: id, Replayed: true}},
		{200, `{"order":"` + id + `","status":"cancelled","replayed":true}`, loadtest.Verdict{Class: loadtest.Replayed, Type: "cancelled", Order: id, Replayed: true}},
		{409, `{"type":"/problems/sold-out","may_return":true}`, loadtest.Verdict{Class: loadtest.SoldOut, Type: "sold-out", MayReturn: true}},
		{409, `{"type":"/problems/limit-reached"}`, loadtest.Verdict{Class: loadtest.Limited, Type: "limit-reached"}},
		{429, `{"type":"/problems/throttled"}`, loadtest.Verdict{Class: loadtest.Limited, Type: "throttled"}},
		{409, `{"type":"/problems/not-open"}`, loadtest.Verdict{Class: loadtest.Early, Type: "not-open"}},
		{403, `{"type":"/problems/ticket-early"}`, loadtest.Verdict{Class: loadtest.Early, Type: "ticket-early"}},
		{503, `{"type":"/problems/overloaded"}`, loadtest.Verdict{Class: loadtest.Overloaded, Type: "overloaded"}},
		{503, `{"type":"/problems/outcome-unknown","order":"` + id + `"}`, loadtest.Verdict{Class: loadtest.Unknown, Type: "outcome-unknown", Order: id}},
		{422, `{"type":"/problems/invalid"}`, loadtest.Verdict{Class: loadtest.Other, Type: "invalid"}},
		{502, `<html>bad gateway</html>`, loadtest.Verdict{Class: loadtest.Unknown}},
		{400, `bad request`, loadtest.Verdict{Class: loadtest.Other}},
		{302, ``, loadtest.Verdict{Class: loadtest.Other}},
		{200, `{"order":"unterminated`, loadtest.Verdict{Class: loadtest.Other}},
	} {
		if got := loadtest.Judge(c.status, []byte(c.body)); got != c.want {
			t.Errorf("%d %s\n got %+v\nwant %+v", c.status, c.body, got, c.want)
		}
	}
}

func TestReadTickets(t *testing.T) {
	t.Parallel()
	keys, err := ticket.NewKeys(1, map[uint8][]byte{1: bytes.Repeat([]byte("k"), ticket.MinKeyLen)})
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	for _, buyer := range []engine.BuyerID{"anna", "ben@x", "b"} {
		token, err := keys.Mint(&ticket.Ticket{Sale: "drop-1", Buyer: buyer, NotAfter: 1 << 41, Identities: []engine.Identity{{1}}})
		if err != nil {
			t.Fatal(err)
		}
		file.WriteString(token + "\n")
	}
	got, err := loadtest.ReadTickets(strings.NewReader(file.String()))
	if err != nil || len(got) != 3 || got[1].Buyer != "ben@x" || got[2].Token == "" {
		t.Fatalf("%v, %v", got, err)
	}
	for _, bad := range []string{"!", "AQ", "AgEB", "AQEBBWRyb3A", "AQEBAAA", "AQEBBGRyb3D_YQ"} {
		if _, err := loadtest.ReadTickets(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// answers serves the bytes of one answer to every request, and closes.
func answers(t *testing.T, parts ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				for _, p := range parts {
					_, _ = c.Write([]byte(p))
				}
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return "http://" + ln.Addr().String()
}

func TestRepliesAreReadAsTheyCome(t *testing.T) {
	t.Parallel()
	const body = `{"order":"abcdefghijklmnopqrstuvwxyz","status":"accepted"}`
	large := strings.Repeat(" ", 6000) + body
	for name, c := range map[string]struct {
		parts []string
		want  loadtest.Class
	}{
		"whole":           {[]string{"HTTP/1.1 202 Accepted\r\nContent-Length: 58\r\n\r\n" + body}, loadtest.Accepted},
		"in pieces":       {[]string{"HTTP/1.1 2", "02 Accepted\r\ncontent-length:58\r\nConnection: close\r\n\r", "\n", body[:10], body[10:]}, loadtest.Accepted},
		"large":           {[]string{"HTTP/1.1 202 Accepted\r\nContent-Length: 6058\r\n\r\n", large}, loadtest.Accepted},
		"no length":       {[]string{"HTTP/1.1 202 Accepted\r\n\r\n" + body}, loadtest.Unknown},
		"bad length":      {[]string{"HTTP/1.1 202 Accepted\r\nContent-Length: x\r\n\r\n" + body}, loadtest.Unknown},
		"huge":            {[]string{"HTTP/1.1 202 Accepted\r\nContent-Length: 999999999\r\n\r\n"}, loadtest.Unknown},
		"too much":        {[]string{"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\n" + body}, loadtest.Unknown},
		"cut in the body": {[]string{"HTTP/1.1 202 Accepted\r\nContent-Length: 58\r\n\r\n" + body[:20]}, loadtest.Unknown},
		"cut in the head": {[]string{"HTTP/1.1 202 Acc"}, loadtest.Unknown},
		"nothing":         {nil, loadtest.Unknown},
		"not HTTP":        {[]string{"SSH-2.0-OpenSSH\r\n\r\n"}, loadtest.Unknown},
		"no status":       {[]string{"HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n"}, loadtest.Unknown},
	} {
		res, err := loadtest.RunClosed(t.Context(), loadtest.PressConfig{
			URLs: []string{answers(t, c.parts...)}, Sale: "drop", Basket: mug, Tickets: tickets(1), Connections: 1, Duration: time.Minute,
		})
		if err != nil || res.Outcomes.Count(c.want) != 1 {
			t.Errorf("%s: %v, %v (%s)", name, res.Outcomes, err, res.Error)
		}
	}
}

// A connection that breaks is an answer that did not come. net/http would send
// the order again by itself.
func TestScenarioSendsEachRequestOnce(t *testing.T) {
	t.Parallel()
	d := newFakeDoor(t, 1000)
	d.cut, d.cutAfter = 5, 50 // on connections that were used before
	var log lines
	cfg := loadtest.ScenarioConfig{
		URLs: []string{d.url}, Sale: "drop", Basket: mug, Tickets: tickets(100), Workers: 4, Log: &log,
		Phases: []loadtest.Phase{{Name: "only", Rate: 400, For: 250 * time.Millisecond}},
	}
	rep, err := loadtest.RunScenario(t.Context(), cfg)
	if err != nil || rep.Requests != 100 || rep.Errors != 5 || rep.Outcomes.Count(loadtest.Accepted) != 95 {
		t.Errorf("%v: %d requests, %d errors, outcomes %v", err, rep.Requests, rep.Errors, rep.Outcomes)
	}
	for key, n := range d.asks {
		if n != 1 {
			t.Errorf("key %s was sent %d times", key, n)
		}
	}
}
