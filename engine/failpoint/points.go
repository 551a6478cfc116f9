package failpoint

// Point is a place where the process may be made to die.
type Point struct {
	Name    string // as Hit names it: what is being done, and how far it is
	Role    string // of `doorbuster serve`: whose process it is that passes here
	Between string // what is done already, and what is not
}

// Points are all there are, in the order in which an order meets them.
var Points = []Point{
	{"door/before-reserve", "door", "buyers wait for their group; Redis was not asked"},
	{"door/after-reserve", "door", "Redis holds the units, the outbox has the envelope; the broker has nothing"},
	{"door/after-publish", "door", "the envelope was sent to the broker; its confirm was not awaited"},
	{"door/after-confirm", "door", "the broker has the envelope; the outbox entry was not noted for its mark"},
	{"door/after-lease", "door", "the lease was found to hold after the confirm; no member of the group was answered"},
	{"door/before-reply", "door", "the handler knows its answer; nothing was written to the connection"},
	{"door/before-mark", "door", "envelopes are confirmed and their buyers answered; their entries stay in the outbox"},

	{"relay/before-publish", "relay", "an entry was found too old; it was not published"},
	{"relay/after-confirm", "relay", "entries were published and confirmed; they stay in the outbox"},
	{"relay/after-mark", "relay", "entries left the outbox; nothing was counted"},

	{"ingest/before-commit", "worker", "messages were taken from the queue; PostgreSQL was not asked"},
	{"ingest/after-commit", "worker", "orders are in PostgreSQL, some of them leased to this worker; their messages were not acknowledged"},
	{"ingest/after-ack", "worker", "messages are acknowledged; the batch that was handed to a payer lives in memory alone"},

	{"pay/before-claim", "worker", "orders may be due; none was taken"},
	{"pay/after-claim", "worker", "due orders are leased to this worker; the provider was not asked"},
	{"pay/before-authorise", "worker", "orders are paying; the provider was not asked"},
	{"pay/after-authorise", "worker", "the provider decided; PostgreSQL does not know"},
	{"pay/after-settle", "worker", "orders are confirmed or cancelled, with their release rows and what is owed; nobody captures"},
	{"pay/after-capture", "worker", "the provider captured or voided; the ledger does not know"},
	{"pay/after-finish", "worker", "the ledger has what the provider did; nothing was counted"},

	{"expiry/after-commit", "worker", "orders past their deadline are cancelled in PostgreSQL; Redis still holds their units"},

	{"applier/after-apply", "recovery", "Redis followed release rows; they are not marked"},
	{"applier/after-mark", "recovery", "release rows are marked; nothing was counted"},

	{"recovery/after-freeze", "recovery", "the sale is frozen in both; leases still run"},
	{"recovery/after-drain", "recovery", "outbox and queue were drained as far as time allowed; the old epoch stands"},
	{"recovery/after-cut", "recovery", "PostgreSQL is in the new epoch, frozen; Redis has no keys of it"},
	{"recovery/after-keys", "recovery", "records and counters of the new epoch are written; its state hash is not"},
	{"recovery/before-unfreeze", "recovery", "the new keys and the pointer are there; PostgreSQL is frozen"},
	{"recovery/after-unfreeze", "recovery", "PostgreSQL goes on; the scripts are not loaded"},
}
