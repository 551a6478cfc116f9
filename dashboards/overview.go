package dashboards

import "fmt"

// source is the Prometheus chosen at the top of the board.
var source = &Datasource{Type: "prometheus", UID: "${datasource}"}

// Overview returns the board of a sale: what it sells, how the door, the queue,
// the worker and recovery are doing, and whether the laws hold.
func Overview() Board {
	b := Board{
		UID: "doorbuster-overview", Title: "Doorbuster: a sale", Tags: []string{"doorbuster"},
		Description: "One sale from the door to the last confirmation. Made from dashboards/overview.go: change it there.",
		Timezone:    "utc", Editable: true, GraphTooltip: 1, Refresh: "5s", SchemaVersion: 39,
		Time: TimeRange{From: "now-15m", To: "now"},
		Templating: Templating{List: []Variable{
			{Name: "datasource", Label: "Prometheus", Type: "datasource", Query: "prometheus", Refresh: 1},
			{
				Name: "sale", Label: "Sale", Type: "query", Query: "label_values(doorbuster_recovery_sale_epoch, sale)",
				Datasource: source, Refresh: 1, IncludeAll: true, Multi: true, AllValue: ".*",
			},
		}},
	}
	var l layout
	for _, row := range []struct {
		title  string
		panels []Panel
	}{
		{"The sale", theSale()},
		{"Is it right?", isItRight()},
		{"Door", theDoor()},
		{"Queue and outbox", theQueue()},
		{"Worker", theWorker()},
		{"Recovery", theRecovery()},
		{"Status and processes", theRest()},
	} {
		l.row(row.title, row.panels)
	}
	b.Panels = l.panels
	return b
}

func theSale() []Panel {
	return []Panel{
		graph("Units", "short", "Where the units are, as the doors see them.",
			q(`sum by (where) (max by (sale, sku, where) (doorbuster_door_stock_units{sale=~"$sale"}))`, "{{where}}")),
		graph("Answers per second", "reqps", "What buyers hear. Over all sales.",
			q(`sum by (outcome) (rate(doorbuster_door_requests_total{route="order"}[$__rate_interval])) > 0`, "{{outcome}}")),
		graph("Orders to their end per second", "ops", "Over all sales.",
			q(`sum(rate(doorbuster_payment_orders_total{stage="pay",result="confirmed"}[$__rate_interval]))`, "confirmed"),
			q(`sum(rate(doorbuster_payment_orders_total{stage="pay",result="declined"}[$__rate_interval]))`, "declined"),
			q(`sum(rate(doorbuster_payment_orders_total{stage="capture",result="captured"}[$__rate_interval]))`, "captured")),
		graph("Time to a 202", "s", "From joining a group to the broker's confirm.", quantiles("doorbuster_door_accept_seconds")...),
	}
}

func isItRight() []Panel {
	return []Panel{
		alarming(1, number("Laws broken", "short", "By `doorbuster audit --watch`. Anything but 0 is an incident.",
			q(`sum(max by (sale, law) (doorbuster_audit_law_broken{sale=~"$sale"}))`, "broken"))),
		number("Lease left", "s", "How long the doors may yet say 202. 0 is 503 to everybody.",
			q(`min(doorbuster_door_lease_left_seconds{sale=~"$sale"})`, "lease")),
		alarming(2, number("Heartbeat age", "s", "Since recovery last raised the heartbeat.",
			q(`max(doorbuster_recovery_heartbeat_age_seconds{sale=~"$sale"})`, "age"))),
		number("Epoch", "short", "Rises with each rebuild.",
			q(`max by (sale) (doorbuster_recovery_sale_epoch{sale=~"$sale"})`, "{{sale}}")),
		graph("Flags", "short", "1 while the doors refuse by it.",
			q(`max by (flag) (doorbuster_door_flag_state{sale=~"$sale"})`, "{{flag}}")),
		graph("Rebuilds and refused script calls", "short", "new is the load of a new sale; anything else is a loss.",
			q(`sum by (trigger) (increase(doorbuster_recovery_rebuilds_total[$__rate_interval]))`, "rebuild: {{trigger}}"),
			q(`sum by (why) (increase(doorbuster_door_refused_calls_total[$__rate_interval]))`, "call: {{why}}")),
	}
}

func theDoor() []Panel {
	return []Panel{
		graph("Stages, p99", "s", "Wait of a group's first member, script, confirm.",
			q(`histogram_quantile(0.99, sum by (le, stage) (rate(doorbuster_door_stage_seconds_bucket[$__rate_interval])))`, "{{stage}}")),
		graph("Group size", "short", "Requests decided by one script call.",
			q(`sum(rate(doorbuster_door_group_orders_sum[$__rate_interval])) / sum(rate(doorbuster_door_group_orders_count[$__rate_interval]))`, "mean")),
		graph("Gate", "short", "Requests in flight, and how many may be. Beyond: 503 overloaded.",
			q(`sum by (sale) (doorbuster_door_gate_limit_requests{sale=~"$sale"})`, "limit {{sale}}"),
			q(`sum by (sale) (doorbuster_door_gate_used_requests{sale=~"$sale"})`, "used {{sale}}")),
		graph("Groups in flight", "short", "Between script and confirm.",
			q(`sum by (sale) (doorbuster_door_groups_in_flight_groups{sale=~"$sale"})`, "{{sale}}"),
			q(`sum(doorbuster_door_sales_in_use_sales)`, "sales in use")),
		graph("Heartbeat and epoch at the doors", "short", "The heartbeat must rise.",
			q(`max by (sale) (doorbuster_door_heartbeat_number{sale=~"$sale"})`, "heartbeat {{sale}}"),
			q(`max by (sale) (doorbuster_door_epoch_number{sale=~"$sale"})`, "epoch {{sale}}")),
		graph("Failures per second", "ops", "Calls to Redis and the broker.",
			q(`sum by (call) (rate(doorbuster_door_failures_total[$__rate_interval]))`, "{{call}}")),
	}
}

func theQueue() []Panel {
	return []Panel{
		graph("Confirm", "s", "From publish to the broker's confirm.", quantiles("doorbuster_queue_publish_seconds")...),
		graph("Messages per second", "ops", "Published by result, delivered by end.",
			q(`sum by (result) (rate(doorbuster_queue_publish_total[$__rate_interval]))`, "publish: {{result}}"),
			q(`sum by (end) (rate(doorbuster_queue_deliveries_total[$__rate_interval]))`, "delivery: {{end}}")),
		graph("Connections", "short", "Publishers connected and blocked, consumers.",
			q(`sum(doorbuster_queue_publisher_connected)`, "publishers"),
			q(`sum(doorbuster_queue_publisher_blocked)`, "blocked"),
			q(`sum(doorbuster_queue_consumers)`, "consumers")),
		graph("Outbox", "short", "Envelopes in Redis that are not known to be confirmed.",
			q(`max by (sale) (doorbuster_relay_outbox_entries{sale=~"$sale"})`, "entries {{sale}}")),
		graph("Outbox age", "s", "Of its oldest entry; the relay publishes what is older than 3 s.",
			q(`max by (sale) (doorbuster_relay_outbox_age_seconds{sale=~"$sale"})`, "{{sale}}")),
		graph("Queue depth", "short", "Messages that wait in RabbitMQ, by ingest queue, and dead letters: of those there must be none.",
			q(`max by (queue) (doorbuster_queue_ready_messages)`, "queue {{queue}}"),
			q(`max(doorbuster_queue_dead_messages)`, "dead letters")),
		graph("Queue backlog age", "s", "How long a queue has not been seen empty.",
			q(`max by (queue) (doorbuster_queue_waiting_seconds)`, "queue {{queue}}")),
		graph("Published again", "ops", "By the relay and the sweep: what a door left behind.",
			q(`sum(rate(doorbuster_relay_published_total[$__rate_interval]))`, "relay"),
			q(`sum(rate(doorbuster_recovery_swept_orders_total[$__rate_interval]))`, "sweep")),
	}
}

func theWorker() []Panel {
	return []Panel{
		graph("Orders per second by stage", "ops", "",
			q(`sum by (stage, result) (rate(doorbuster_payment_orders_total[$__rate_interval])) > 0`, "{{stage}}: {{result}}")),
		graph("Steps, p99", "s", "One batch.",
			q(`histogram_quantile(0.99, sum by (le, stage) (rate(doorbuster_payment_step_seconds_bucket[$__rate_interval])))`, "{{stage}}")),
		graph("Ingest lag", "s", "Age of the oldest accept that PostgreSQL does not know. The gate closes at 15 s.",
			q(`max by (sale) (doorbuster_recovery_ingest_lag_seconds{sale=~"$sale"})`, "{{sale}}"),
			q(`max(doorbuster_payment_ingest_lag_seconds)`, "latest batch")),
		graph("Provider, p99", "s", "One call.",
			q(`histogram_quantile(0.99, sum by (le, provider, call) (rate(doorbuster_payment_provider_seconds_bucket[$__rate_interval])))`, "{{provider}} {{call}}")),
		graph("In hand", "short", "Orders with a payer, messages in a batch.",
			q(`sum(doorbuster_payment_in_hand_orders)`, "orders"),
			q(`sum(rate(doorbuster_queue_batch_messages_sum[$__rate_interval])) / sum(rate(doorbuster_queue_batch_messages_count[$__rate_interval]))`, "messages per batch")),
		graph("Failed steps per second", "ops", "They are tried again.",
			q(`sum by (stage) (rate(doorbuster_payment_errors_total[$__rate_interval]))`, "{{stage}}")),
		graph("Payments unknown for long", "short", "Looks at orders whose payment the provider has not known for 10 minutes; the log names them.",
			q(`sum(increase(doorbuster_payment_orders_total{stage="pay",result="overdue"}[$__rate_interval]))`, "overdue")),
		graph("Parked orders", "short", "Accepted before a rebuild, and waiting until their sale can take them again.",
			q(`max(doorbuster_payment_parked_orders)`, "parked")),
	}
}

func theRecovery() []Panel {
	return []Panel{
		graph("Moves", "ops", "Applied to Redis, by operation.",
			q(`sum by (op) (rate(doorbuster_recovery_moves_total[$__rate_interval]))`, "{{op}}")),
		graph("Moves waiting", "short", "Release rows that Redis does not follow yet.",
			q(`max by (sale) (doorbuster_recovery_applier_pending_moves{sale=~"$sale"})`, "{{sale}}"),
			q(`sum(increase(doorbuster_recovery_rows_bad_total[$__rate_interval]))`, "could not follow")),
		graph("Clock skew", "s", "How far Redis' clock is before PostgreSQL's. Beyond 1 s the sale is paused.",
			q(`max by (sale) (doorbuster_recovery_clock_skew_seconds{sale=~"$sale"})`, "{{sale}}")),
		graph("Leaders", "short", "Exactly one per sale.",
			q(`sum by (sale) (doorbuster_recovery_leading_sales{sale=~"$sale"})`, "{{sale}}")),
		graph("Rebuild", "s", "From the freeze until the scripts were loaded: mean since the process began.",
			q(`sum(doorbuster_recovery_rebuild_seconds_sum) / sum(doorbuster_recovery_rebuild_seconds_count)`, "mean")),
		graph("Housekeeping", "ops", "Old epochs dropped, tombstones pruned, rows marked.",
			q(`sum(rate(doorbuster_recovery_epochs_dropped_total[$__rate_interval]))`, "epochs"),
			q(`sum(rate(doorbuster_recovery_pruned_tombstones_total[$__rate_interval]))`, "tombstones"),
			q(`sum(rate(doorbuster_recovery_rows_marked_total[$__rate_interval]))`, "rows")),
		graph("Unreadable in Redis", "short", "Left out whenever it is met: records, counters and outbox entries of no known format.",
			q(`sum by (what) (increase(doorbuster_stock_unreadable_total[$__rate_interval]))`, "{{what}}")),
	}
}

func theRest() []Panel {
	return []Panel{
		graph("Status requests per second", "reqps", "",
			q(`sum by (route, class) (rate(doorbuster_status_requests_total[$__rate_interval])) > 0`, "{{route}} {{class}}")),
		graph("Live streams", "short", "",
			q(`sum(doorbuster_status_streams)`, "open"),
			q(`sum(increase(doorbuster_status_streams_refused_total[$__rate_interval]))`, "refused")),
		graph("Status in trouble", "ops", "No turn at PostgreSQL, or no answer.",
			q(`sum(rate(doorbuster_status_busy_total[$__rate_interval]))`, "busy"),
			q(`sum(rate(doorbuster_status_failures_total[$__rate_interval]))`, "failed")),
		graph("Processor", "short", "Cores used.",
			q(`sum by (instance) (rate(process_cpu_seconds_total{job="doorbuster"}[$__rate_interval]))`, "{{instance}}")),
		graph("Memory", "bytes", "Resident.",
			q(`sum by (instance) (process_resident_memory_bytes{job="doorbuster"})`, "{{instance}}")),
		graph("Goroutines", "short", "",
			q(`sum by (instance) (go_goroutines{job="doorbuster"})`, "{{instance}}")),
	}
}

// q is a query and what its lines are called.
func q(expr, legend string) Target {
	return Target{Expr: expr, LegendFormat: legend, Datasource: source}
}

// quantiles are the three lines of a histogram of seconds.
func quantiles(histogram string) []Target {
	var out []Target
	for _, p := range []string{"0.5", "0.99", "0.999"} {
		out = append(out, q(fmt.Sprintf(`histogram_quantile(%s, sum by (le) (rate(%s_bucket[$__rate_interval])))`, p, histogram), "p"+p[2:]))
	}
	return out
}

func graph(title, unit, what string, targets ...Target) Panel {
	zero := 0.0
	return Panel{
		Title: title, Type: "timeseries", Description: what, Targets: targets,
		FieldConfig: &FieldConfig{Defaults: Defaults{Unit: unit, Min: &zero}, Overrides: []any{}},
		Options: &Options{
			Legend:  &Legend{DisplayMode: "list", Placement: "bottom", Calcs: []string{}},
			Tooltip: &Tooltip{Mode: "multi"},
		},
	}
}

// number is a panel of one value.
func number(title, unit, what string, targets ...Target) Panel {
	return Panel{
		Title: title, Type: "stat", Description: what, Targets: targets,
		FieldConfig: &FieldConfig{
			Defaults:  Defaults{Unit: unit, Thresholds: &Thresholds{Mode: "absolute", Steps: []Step{{Color: "green"}}}},
			Overrides: []any{},
		},
		Options: &Options{ColorMode: "value", ReduceOptions: &ReduceOptions{Calcs: []string{"lastNotNull"}}},
	}
}

// alarming makes a number red from this value on.
func alarming(from float64, p Panel) Panel {
	t := p.FieldConfig.Defaults.Thresholds
	t.Steps = append(t.Steps, Step{Color: "red", Value: &from})
	return p
}

// layout puts panels in rows.
type layout struct {
	panels []Panel
	y      int
}

const (
	boardWidth  = 24
	graphWidth  = 8
	graphHeight = 8
	statWidth   = 6
	statHeight  = 4
)

func (l *layout) add(p Panel) {
	p.ID = len(l.panels) + 1
	for i := range p.Targets {
		p.Targets[i].RefID = string(rune('A' + i))
	}
	if p.Type != "row" {
		p.Datasource = source
	}
	l.panels = append(l.panels, p)
}

func (l *layout) row(title string, panels []Panel) {
	l.add(Panel{Title: title, Type: "row", GridPos: GridPos{H: 1, W: boardWidth, Y: l.y}})
	l.y++
	x, height := 0, 0
	for _, p := range panels {
		w, h := graphWidth, graphHeight
		if p.Type == "stat" {
			w, h = statWidth, statHeight
		}
		if x+w > boardWidth || (height != 0 && h != height) {
			l.y += height
			x = 0
		}
		p.GridPos = GridPos{H: h, W: w, X: x, Y: l.y}
		l.add(p)
		x, height = x+w, h
	}
	l.y += height
}
