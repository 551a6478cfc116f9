// Command doorbuster is the whole of Doorbuster in one binary: the server with
// its roles, the private servers it can bring up, the demo, the load tests, the
// audit, and what an operator says to a sale.
//
// This package wires: it alone reads the environment, opens connections and
// decides which implementation stands behind an interface. It decides nothing
// about a sale. Every command stops when its context ends (SIGINT, SIGTERM) and
// returns after all it started has ended.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitFailed = 1 // the command could not do its work, or a law is broken
	exitUsage  = 2 // the command line is wrong
)

// Globals are the flags every command has, and the streams it talks to.
type Globals struct {
	Dir      string `help:"State directory of the private servers, keys and logs." default:".doorbuster/default" env:"DOORBUSTER_DIR" type:"path"`
	LogLevel string `help:"Least level to log: debug, info, warn, error." default:"info" enum:"debug,info,warn,error" env:"DOORBUSTER_LOG_LEVEL"`

	JSON   bool      `kong:"-"` // set by a command's --json
	Stdout io.Writer `kong:"-"`
	Stderr io.Writer `kong:"-"`
}

// JSONFlag is the --json of a command that prints what a program would read.
type JSONFlag bool

// BeforeApply tells the globals that it was given.
func (j JSONFlag) BeforeApply(g *Globals) error { g.JSON = true; return nil }

// Logger logs JSON lines to standard error.
func (g *Globals) Logger() *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(g.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(g.Stderr, &slog.HandlerOptions{Level: level}))
}

// errVerdict ends a command whose work is done but whose verdict is "fail": the
// report has been printed, only the exit status is left to set.
var errVerdict = errors.New("verdict: fail")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], &Globals{Stdout: os.Stdout, Stderr: os.Stderr})
	stop()
	os.Exit(code)
}

// run parses the command line and runs one command; it returns the exit status.
func run(ctx context.Context, args []string, g *Globals) int {
	var cli CLI
	cli.Globals = *g
	parser, err := kong.New(&cli,
		kong.Name("doorbuster"),
		kong.Description("A flash-sale engine: sells every unit once, charges once, and proves it."),
		kong.UsageOnError(),
		kong.Writers(g.Stdout, g.Stderr),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&cli.Globals),
	)
	if err != nil {
		fmt.Fprintln(g.Stderr, "doorbuster:", err)
		return exitUsage
	}
	cmd, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(g.Stderr, "doorbuster:", err)
		fmt.Fprintln(g.Stderr, usage(err))
		return exitUsage
	}
	switch err := cmd.Run(); {
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return 0
	case errors.Is(err, errVerdict):
		return exitFailed
	default:
		fmt.Fprintln(g.Stderr, "doorbuster:", err)
		if h := hint(err); h != "" {
			fmt.Fprintln(g.Stderr, h)
		}
		return exitFailed
	}
}
