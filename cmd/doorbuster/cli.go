package main

// CLI is the command line.
type CLI struct {
	Globals

	Demo    DemoCmd    `cmd:"" help:"Run a real sale on private servers and prove it."`
	Up      UpCmd      `cmd:"" help:"Bring up private Redis, RabbitMQ and PostgreSQL."`
	Down    DownCmd    `cmd:"" help:"Stop them."`
	Status  StatusCmd  `cmd:"" help:"Show them."`
	Serve   ServeCmd   `cmd:"" help:"Serve, in the given roles, until SIGTERM."`
	Migrate MigrateCmd `cmd:"" help:"Bring PostgreSQL's tables to this version."`
	Sale    SaleCmd    `cmd:"" help:"Create a sale, and act on one."`
	Ticket  TicketCmd  `cmd:"" help:"Mint tickets, the credential of the door."`
	Token   TokenCmd   `cmd:"" help:"Mint bearer tokens."`
	Audit   AuditCmd   `cmd:"" help:"Check the laws of a sale; exit status 1 if one is broken."`

	Recovery RecoveryCmd `cmd:"" help:"Ask how recovery keeps the sales."`

	DeadLetters DeadLettersCmd `cmd:"" help:"Show the messages that were put aside, or send them back."`

	Load     LoadCmd     `cmd:"" help:"Load test a door."`
	Chaos    ChaosCmd    `cmd:"" help:"Break real servers under load and check the laws."`
	Simulate SimulateCmd `cmd:"" help:"Run the engine against simulated services that fail, from seeds."`
	Sandbox  SandboxCmd  `cmd:"" help:"Serve the sandbox payment provider."`

	Bench      BenchCmd      `cmd:"" help:"Measure everything in docs/BENCHMARKS.md again." hidden:""`
	BenchChild BenchChildCmd `cmd:"" help:"A server of the benchmark's own." hidden:""`
}
