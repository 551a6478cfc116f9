// Package dashboards is what an operator sees: a Grafana board of a sale, the
// scrape configuration and the alert rules of Prometheus, as files in the binary.
//
// It owns the files below files/. The board is made from Go values ([Overview])
// and the JSON is committed; a test makes it again and compares. Rules are
// written by hand and have unit tests that promtool runs.
//
// Invariants: every expression on the board parses, and has data in a Prometheus
// that scrapes a sale which has run (a test runs each of them); every alert has a
// test in which it fires and one in which it does not.
//
// Everything here is constant and safe for concurrent use. It imports the
// standard library only, and knows the metrics of other packages by their names.
package dashboards
