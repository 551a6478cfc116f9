package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/doorbuster/doorbuster/engine/orders"
)

// undefinedTable is PostgreSQL's SQLSTATE for a table that is not there.
const undefinedTable = "42P01"

// hint says what to do about an error, "" if the error says it itself.
func hint(err error) string {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	var dial *net.OpError
	switch {
	case errors.As(err, &pg) && pg.Code == undefinedTable:
		return "The database has no tables of Doorbuster: run `doorbuster migrate`."
	case errors.Is(err, orders.ErrNoSale):
		return "Is it the id of the sale file, and are these the servers it was created on? See --dir, or DATABASE_URL."
	case errors.As(err, &connect), errors.As(err, &dial) && errors.Is(dial.Err, syscall.ECONNREFUSED):
		return "A server does not answer. `doorbuster status` shows those that `doorbuster up` started; others are named by REDIS_URL, AMQP_URL and DATABASE_URL."
	}
	return ""
}

// noDoor says that a request did not reach a door at all.
func noDoor(at string, err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	return fmt.Errorf("no door answers at %s: start one with `doorbuster serve`, or name it with --url: %v", at, err) //nolint:errorlint // said whole: no other hint fits
}

// usage says where the help of a wrong command line is.
func usage(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			return "Try: " + node.FullPath() + " --help"
		}
	}
	return "Try: doorbuster --help"
}
