package stock

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts by SHA-1; nothing secret hangs on it
	"embed"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
)

//go:embed *.lua
var files embed.FS

// Op is one operation on a sale's keys: one script.
type Op int

// The operations.
const (
	OpReserve Op = iota
	OpSettle
	OpRelease
	OpDrop
	OpReturn
	OpRestock
	OpWithdraw
	OpPrune
	OpState
	OpDefine
	OpLag
	NumOps
)

var opNames = [NumOps]string{
	"reserve", "settle", "release", "drop", "return", "restock", "withdraw", "prune", "state", "define", "lag",
}

// String is the name of the operation, and of its file without ".lua".
func (op Op) String() string {
	if op < 0 || op >= NumOps {
		return "unknown"
	}
	return opNames[op]
}

// SHAs are the SHA-1 of the scripts in use, by Op, as 40 hex digits.
type SHAs [NumOps]string

// argsFormat is the first argument of every call; a script refuses another.
const argsFormat = "1"

// incLine is the line of every script that Text fills in.
const incLine = "local INC = '0'\n"

// Text is the script as it is loaded on a server of that incarnation. It carries
// the number, so the same operation has another SHA after each restart that was
// noticed.
func Text(op Op, incarnation int64) string {
	b, err := files.ReadFile(op.String() + ".lua")
	if err != nil {
		panic("stock: operation without a file, which a test of this package finds: " + err.Error())
	}
	return strings.Replace(string(b), incLine, "local INC = '"+strconv.FormatInt(incarnation, 10)+"'\n", 1)
}

// hashed remembers the SHAs of a few incarnations: each probe of a sale asks for
// them, and hashing all scripts costs some 50 µs.
var hashed struct {
	sync.Mutex
	shas map[int64]SHAs
}

const hashedMost = 64 // incarnations remembered

// ScriptSHAs are the SHAs of this binary's scripts for a server of that
// incarnation.
func ScriptSHAs(incarnation int64) SHAs {
	hashed.Lock()
	defer hashed.Unlock()
	shas, ok := hashed.shas[incarnation]
	if ok {
		return shas
	}
	if hashed.shas == nil || len(hashed.shas) >= hashedMost {
		hashed.shas = make(map[int64]SHAs, hashedMost)
	}
	shas = hashScripts(incarnation)
	hashed.shas[incarnation] = shas
	return shas
}

func hashScripts(incarnation int64) SHAs {
	var shas SHAs
	for op := range NumOps {
		sum := sha1.Sum([]byte(Text(op, incarnation)))
		shas[op] = hex.EncodeToString(sum[:])
	}
	return shas
}

// String writes the SHAs as the state hash keeps them: op=sha,op=sha,…
func (s *SHAs) String() string {
	var b strings.Builder
	for op := range NumOps {
		if op > 0 {
			b.WriteByte(',')
		}
		b.WriteString(op.String())
		b.WriteByte('=')
		b.WriteString(s[op])
	}
	return b.String()
}

// parseSHAs reads what String writes. An operation the writer did not know stays
// empty, one that this binary does not know is skipped.
func parseSHAs(s string) (shas SHAs) {
	next := Op(0)
	for part := range strings.SplitSeq(s, ",") {
		name, sha, _ := strings.Cut(part, "=")
		for i := range NumOps { // the first guess is right unless another version wrote it
			if op := (next + i) % NumOps; opNames[op] == name {
				shas[op], next = sha, op+1
				break
			}
		}
	}
	return shas
}
