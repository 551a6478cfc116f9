// Package ticket issues and verifies tickets: the one credential the hot path
// knows. A ticket says that this buyer may order in this sale, from when until
// when, how many units at most, and which identities stand behind him. Whoever
// asks the slow questions (who are you, were you drawn, is it your turn) asks
// them before the open and mints a ticket; the door checks one MAC and compares
// two times.
//
// A token is base64url, without padding, of
//
//	1 | key number | tier | sale | buyer | not before | not after | max | identities | MAC
//
// where sale and buyer have a length byte before them, times are 8 bytes of Unix
// milliseconds, max is 4 bytes of units (0 is no bound), identities are a count
// byte and 8 bytes each, and the MAC is the first 16 bytes of HMAC-SHA256 over
// everything before it. The leading 1 is the format's number. There is no field
// that names an algorithm: the key number decides key and algorithm both.
//
// Invariants: only canonical tokens verify (no padding, no stray bits, no bytes
// left over), so one ticket has one spelling. MACs are compared in constant
// time, before anything in the token but the key number is looked at.
//
// Concurrency: Keys never change after NewKeys and are safe for many goroutines.
// The package starts nothing and so has nothing to stop. It imports engine only;
// it does not know what time it is, nor who is behind the buyer.
package ticket
