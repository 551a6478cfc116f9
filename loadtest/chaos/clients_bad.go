package chaos

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/doorbuster/doorbuster/loadtest/history"
	"github.com/doorbuster/doorbuster/loadtest/smuggling"
)

const (
	abreast     = 50              // connections of those who mean harm, at once
	silence     = 4 * time.Second // after which a door has closed what it does not understand
	idlers      = 1_500           // connections that say nothing
	idleFor     = 3 * time.Second // they stay
	garbageMost = 3 << 10         // bytes of a body that means nothing
	hiddenKey   = "hidden"        // of the orders that are smuggled
	forgeries   = stormy          // requests under tickets that nobody issued
)

// abreastOf calls do for 0 to n-1, some at a time, and joins the errors.
func abreastOf(n int, do func(i int) error) error {
	var all sync.WaitGroup
	errs := make([]error, n)
	slots := make(chan struct{}, abreast)
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			errs[i] = do(i)
			<-slots
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// smuggle sends requests that can be read in two ways, each with an order of its own
// hidden in it. Each must end in one refusal and the end of the connection. That no
// hidden order was taken is asked afterwards: under its key there is none.
func smuggle(ctx context.Context, h *house, s *strangers) error {
	lines, err := smuggling.Corpus()
	if err != nil {
		return err
	}
	if len(lines)*2 > len(s.tickets) {
		return fmt.Errorf("%d lines want twice as many tickets, there are %d", len(lines), len(s.tickets))
	}
	err = abreastOf(len(lines), func(i int) error {
		order, post := s.request(h, i, hiddenKey, 0), s.request(h, len(lines)+i, "seen", 0)
		statuses, closed, err := s.exchange(h, smuggling.Fill(lines[i].Raw, string(order), string(post)))
		if err != nil {
			return fmt.Errorf("smuggled %q: %w", lines[i].Name, err)
		}
		if len(statuses) > 1 || len(statuses) == 1 && statuses[0]/100 != 4 || !closed {
			return fmt.Errorf("smuggled %q: answers %v, closed %v; want one refusal and the end", lines[i].Name, statuses, closed)
		}
		return nil
	})
	return errors.Join(err, abreastOf(len(lines), func(i int) error {
		if out := s.ask(ctx, h, i, history.Wish{Key: hiddenKey}); out.Replayed {
			return fmt.Errorf("smuggled %q: its hidden order was taken", lines[i].Name)
		}
		return nil
	}))
}

// exchange sends bytes and reads answers until the door closes, or has been silent for
// long.
func (s *strangers) exchange(h *house, raw string) (statuses []int, closed bool, err error) {
	conn, err := s.dial(h)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, raw) // it may be refused before it is through
	r := bufio.NewReader(conn)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(silence))
		resp, err := http.ReadResponse(r, nil)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return statuses, false, nil
		}
		if err != nil {
			return statuses, true, nil
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		statuses = append(statuses, resp.StatusCode)
	}
}

// forge asks under tickets that nobody issued: good ones with one character changed,
// and none at all.
func forge(_ context.Context, h *house, s *strangers) error {
	return abreastOf(forgeries, func(i int) error {
		dice := rand.New(rand.NewPCG(h.seed, uint64(i)))
		token := []byte(s.tickets[i].Token)
		at := dice.IntN(len(token) - 1) // of the last one some bits say nothing
		for was := token[at]; token[at] == was; {
			token[at] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[dice.IntN(64)]
		}
		if i%10 == 0 {
			token = nil
		}
		req := bytes.Replace(s.request(h, i, "forged", 0), []byte(s.tickets[i].Token), token, 1)
		req = bytes.Replace(req, []byte("Host: "), []byte("Connection: close\r\nHost: "), 1)
		statuses, _, err := s.exchange(h, string(req))
		if err == nil && (len(statuses) != 1 || statuses[0]/100 != 4) {
			err = fmt.Errorf("a forged ticket (character %d of %d) was answered %v", at, len(s.tickets[i].Token), statuses)
		}
		return err
	})
}

// garbage sends good heads with bodies that mean nothing, and bytes that are no
// request.
func garbage(_ context.Context, h *house, s *strangers) error {
	return abreastOf(broken, func(i int) error {
		dice := rand.New(rand.NewPCG(h.seed, uint64(i)))
		body := make([]byte, dice.IntN(garbageMost))
		for j := range body {
			body[j] = byte(dice.UintN(256))
		}
		raw := string(body)
		if i%2 == 0 {
			head, _, _ := strings.Cut(string(s.request(h, i, "garbage", 0)), "Content-Length")
			raw = fmt.Sprintf("%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body)
		}
		statuses, _, err := s.exchange(h, raw)
		for _, status := range statuses {
			if status/100 == 2 {
				err = fmt.Errorf("garbage of %d bytes was answered %d", len(body), status)
			}
		}
		return err
	})
}

// idle opens many connections that say nothing, and keeps them for a while. That the
// others are served is told by the rest of the run.
func idle(ctx context.Context, h *house, s *strangers) error {
	all := make([]net.Conn, 0, idlers)
	defer func() {
		for _, conn := range all {
			_ = conn.Close()
		}
	}()
	for range idlers {
		conn, err := s.dial(h)
		if err != nil {
			return err
		}
		all = append(all, conn)
	}
	rest(ctx, idleFor)
	return nil
}
