// Package stock decides who gets a unit. Everything a sale needs for that lies in
// one Redis slot; each change of it is one Lua script, and this package is their
// Go face. Start at reserve.lua.
//
// It owns the keys s:{sale} and s:{sale}:epoch:… (keys.go has them all). Nobody
// else reads or writes them.
//
// # Invariants
//
// Per SKU available + held + sold = units, and none of them is negative. A
// record that is held stands for units in held and in its buyer's and identities'
// counters. The numbers of holds are gapless per sale and epoch. A script makes
// every read and refusal before its first write, so it happens whole or not at
// all. Every script may be run twice, and settle, release, drop, return, restock,
// withdraw and prune end the same in whatever order they run.
//
// # Fences
//
// Scripts are called by SHA only, never by text: a Redis that restarted does not
// know them (NOSCRIPT), and that is how its forgetting is noticed. Their text
// carries the incarnation of the server, so that a script which another sale
// loaded anew does not serve keys from before the restart. The epoch is part of
// every key's name. Each of these ends in ErrFenced, and package recovery builds
// the next epoch.
//
// # Concurrency
//
// A Store is safe for use by many goroutines and starts none; the end of a
// context ends a call. After an error that is not one of this package's, it is
// unknown whether the call took effect: repeat it with the same order ids and the
// same row ids.
//
// [Model] does in Go what the scripts do in Redis, method by method. Random
// schedules leave both with the same state; only therefore may a simulator take
// it for the real one.
//
// Of this module it imports package engine only.
package stock
