package simulate_test

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/doorbuster/doorbuster/loadtest/simulate"
)

// storiesEnv says how many stories TestStories tells; without it, and with the race
// detector, it tells few.
const (
	storiesEnv = "DOORBUSTER_STORIES"
	fewStories = 300
)

// happens is what is in the stories of the seeds that are told first: what fails, and what
// people do.
var happens = []string{
	"crash", "process stopped", "request lost", "answer lost", "effect late", "reply lost", "ack lost", "apply cut short",
	"redis loses a suffix", "redis loses everything", "restart of redis", "replica promoted", "script flush", "clock of redis jumps",
	"durable mode", "not known to be on disk", "redis answers before it writes",
	"message twice", "queue purged", "queue deleted", "message without a queue", "delivery delayed", "broker away",
	"db away", "clock of db jumps", "bank away",
	"two sales", "checkout", "hold expired", "opens in the story", "closes by its window", "restock", "withdraw", "return", "redefine",
	"pause", "resume", "close", "sale settled", "tombstone pruned", "late buyer", "message again",
}

// TestStories: no law is broken, whatever fails.
func TestStories(t *testing.T) {
	t.Parallel()
	n := fewStories
	if s := os.Getenv(storiesEnv); s != "" && !raceEnabled {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", storiesEnv, err)
		}
	}
	r, err := simulate.Run(t.Context(), simulate.Config{Seeds: n, From: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Seeds != n || r.Acknowledged < 5*n {
		t.Errorf("%d stories of %d, %d orders acknowledged: too few to say anything", r.Seeds, n, r.Acknowledged)
	}
	for _, what := range happens {
		if r.Faults[what] == 0 {
			t.Errorf("%q never happened", what)
		}
	}
	for what := range r.Faults {
		if !slices.Contains(happens, what) {
			t.Errorf("%q is counted, and no test asks for it", what)
		}
	}
	for i, f := range r.Failing {
		t.Errorf("seed %d: %q", f.Seed, f.Broken)
		if i == 0 {
			tell(t, f.Seed)
		}
	}
}

// tell shows the story of a seed.
func tell(t *testing.T, seed uint64) []string {
	t.Helper()
	var story bytes.Buffer
	broken, err := simulate.Tell(&story, seed)
	if err != nil {
		t.Fatal(err)
	}
	if len(broken) > 0 {
		t.Log(story.String())
	}
	return broken
}

// kept are seeds of stories that once went wrong, and why.
var kept = map[uint64]string{
	2683:   "who had not yet heard that the sale is settled froze it, and nobody led it any more",
	88230:  "Redis lost a sale between being told that it is settled and the commit, and the law took that for a fault",
	341747: "the same, with a commit that came late and a replica",
	478878: "an ingest lag that came late stayed in the slot, and the doors closed",
	// Two sales, rebuilt at the same time, each raised the number of their server.
	36736:  "the next leader rebuilt the one that was built under the older number",
	683801: "the next leader rebuilt the one that was built under the older number",
	// Clocks a second apart, more or less.
	35306:  "recovery paused the sale in Redis, and had yet to say so in PostgreSQL, when replays began",
	39995:  "recovery paused the sale for its clocks, and replays were blamed",
	379713: "recovery paused one of two sales for their clocks, and replays were blamed",
	602464: "recovery paused again what the operator had resumed, and replays were blamed",
	857952: "recovery paused again what the operator had resumed, and replays were blamed",
	// Acts of the operator that came after his next.
	445067: "a resume that was on its way came to PostgreSQL after the next pause",
	669081: "a resume that was on its way came to PostgreSQL after the next pause",
	765691: "a resume that was on its way came to PostgreSQL after the next pause",
	505456: "what a resume sent came to Redis after the next pause",
	566836: "what a resume sent came to Redis after the next pause",
	768702: "what a resume sent came to Redis after the next pause",
	968016: "recovery, which had not yet heard of the pause, opened Redis after it",
	174744: "a change of the window came when that was over and the sale closed",
	429060: "a change of the window came when that was over and the sale closed",
	866439: "a change of the window came when that was over and the sale closed",
	874567: "a change of the window came when that was over and the sale closed",
	// Clocks eleven seconds apart.
	550166: "Redis stayed open beside a closed sale while the clocks were apart",
}

// TestKept tells them again.
func TestKept(t *testing.T) {
	t.Parallel()
	for seed, why := range kept {
		if broken := tell(t, seed); len(broken) > 0 {
			t.Errorf("seed %d, which once went wrong because %s: %q", seed, why, broken)
		}
	}
}

// TestSameSeed: a seed is a story, line by line.
func TestSameSeed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		var once, again bytes.Buffer
		_, err1 := simulate.Tell(&once, seed)
		_, err2 := simulate.Tell(&again, seed)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if !bytes.Equal(once.Bytes(), again.Bytes()) {
			t.Errorf("seed %d tells two stories", seed)
		}
		if once.Len() == 0 {
			t.Errorf("seed %d tells nothing", seed)
		}
	}
}
