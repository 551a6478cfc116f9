package main

import "context"

type LoadCmd struct{}

func (c *LoadCmd) Run(ctx context.Context, g *Globals) error { return nil }

type BenchCmd struct{}

func (c *BenchCmd) Run(ctx context.Context, g *Globals) error { return nil }
