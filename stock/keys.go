package stock

import (
	"strconv"

	"github.com/doorbuster/doorbuster/engine"
)

// Every key of a sale. The sale id is the hash tag, so all of them lie in one
// slot. The epoch is in every name but the pointer's: a rebuild writes new keys
// beside the old ones, and a script that was given the old ones cannot touch the
// new.
//
//	s:{sale}          hash    epoch → the epoch in use; e:<n> → 1 for each epoch that may have keys
//	s:{sale}:E:st     hash    state, definition and stock, see below
//	s:{sale}:E:o      hash    order id → engine.Record
//	s:{sale}:E:b      hash    buyer → 1000 × units + orders, live ones only
//	s:{sale}:E:i      hash    identity (8 bytes) → units
//	s:{sale}:E:ob     stream  <first seq>-0, field e: engine.Envelope, until it is confirmed
//	s:{sale}:E:rows   hash    row of a return, restock or withdraw → units it moved
//	s:{sale}:E:w      string  written by a call that waits for disk or replica (Safety), a minute
//
// Fields of the state hash: state (open, paused, closed, frozen), inc
// (incarnation), ver (of the definition), opens and closes (Unix ms), cur
// (currency), lb and li (limit per buyer and identity, units, 0 is none), kn
// (number of the master key that order ids derive from, never changed), seq (the
// last hold), hb (heartbeat), lag (ms), sha (op=SHA,…), retired (1 if the sale is
// settled: records and counters go after a while, this hash stays), safe (of a durable sale: Safety), and per SKU a: h: s: u: p:
// (available, held, sold, units, price in minor units).
const (
	fieldEpoch = "epoch"
	fieldHas   = "e:"

	fieldState     = "state"
	fieldInc       = "inc"
	fieldVersion   = "ver"
	fieldOpens     = "opens"
	fieldCloses    = "closes"
	fieldCurrency  = "cur"
	fieldLimit     = "lb"
	fieldIdentity  = "li"
	fieldKey       = "kn"
	fieldSeq       = "seq"
	fieldHeartbeat = "hb"
	fieldLag       = "lag"
	fieldSHA       = "sha"
	fieldRetired   = "retired"
	fieldSafety    = "safe"
	fieldTurn      = "turn" // not there: 0

	available = "a:"
	held      = "h:"
	sold      = "s:"
	units     = "u:"
	price     = "p:"

	entryField = "e"
)

// States of the slot, as the state hash spells them.
const (
	stateOpen   = "open"
	statePaused = "paused"
	stateClosed = "closed"
	stateFrozen = "frozen"
)

// perOrder is what one order adds to a buyer's counter above its units.
const perUnit, perOrder = 1000, 1

func pointerKey(sale engine.SaleID) string { return "s:{" + string(sale) + "}" }

// keys are the keys of one epoch.
type keys struct{ state, records, buyers, identities, outbox, rows, barrier string }

func keysOf(sale engine.SaleID, epoch int64) keys {
	k := pointerKey(sale) + ":" + strconv.FormatInt(epoch, 10)
	return keys{
		state: k + ":st", records: k + ":o", buyers: k + ":b",
		identities: k + ":i", outbox: k + ":ob", rows: k + ":rows", barrier: k + ":w",
	}
}

func (k *keys) all() []string {
	return []string{k.state, k.records, k.buyers, k.identities, k.outbox, k.rows, k.barrier}
}
