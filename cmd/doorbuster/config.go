package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/doorbuster/doorbuster/engine/backing"
	"github.com/doorbuster/doorbuster/engine/queue"
)

// keyLen is the length of every secret that is made here, in bytes.
const keyLen = 32

// Backends are the URLs of the three servers.
type Backends struct {
	Redis, AMQP, Postgres string
}

// environment returns the server URLs that the environment names; empty where it
// names none.
func environment() Backends {
	return Backends{Redis: os.Getenv("REDIS_URL"), AMQP: os.Getenv("AMQP_URL"), Postgres: os.Getenv("DATABASE_URL")}
}

// queue says where the broker is. DOORBUSTER_QUEUE_PREFIX sets apart the queues of
// installations that share a broker, as DATABASE_URL does their tables.
func (b Backends) queue(log *slog.Logger) queue.Config {
	return queue.Config{URL: b.AMQP, Prefix: os.Getenv("DOORBUSTER_QUEUE_PREFIX"), Logger: log}
}

// backends returns the servers to use: what the environment names, else those
// that `doorbuster up` started in the state directory.
func (g *Globals) backends() (Backends, error) {
	b := environment()
	if b.Redis != "" && b.AMQP != "" && b.Postgres != "" {
		return b, nil
	}
	s, err := backing.Open(backing.Config{Dir: g.Dir})
	if err != nil {
		return Backends{}, fmt.Errorf("no servers: set REDIS_URL, AMQP_URL and DATABASE_URL, or run `doorbuster up --dir %s` first: %w", g.Dir, err)
	}
	u := s.URLs()
	return Backends{Redis: or(b.Redis, u.Redis), AMQP: or(b.AMQP, u.AMQP), Postgres: or(b.Postgres, u.Database)}, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Secrets are the keys of an installation. They come from the file that
// DOORBUSTER_SECRETS_FILE names, else from secrets.json in the state directory,
// which is made on first use.
type Secrets struct {
	OrderKeys  map[string]string `json:"order_keys"`  // number → hex, at least 32 bytes; the number is fixed for a sale's life
	TicketKeys map[string]string `json:"ticket_keys"` // number → hex, at least 32 bytes
	TicketKey  int               `json:"ticket_key"`  // the one that signs new tickets
	TokenSeed  string            `json:"token_seed"`  // hex, Ed25519 seed: signs tokens of `doorbuster token mint`
}

// secrets reads the secrets, and makes them first where that is allowed.
func (g *Globals) secrets() (*Secrets, error) {
	path, made := os.Getenv("DOORBUSTER_SECRETS_FILE"), false
	if path == "" {
		path, made = filepath.Join(g.Dir, "secrets.json"), true
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && made {
		b, err = makeSecrets(path)
	}
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	s := new(Secrets)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("secrets file %s: %w", path, err)
	}
	return s, nil
}

// makeSecrets writes new secrets, readable by their owner alone. Two processes
// may start at once: whoever links the file first wins, both read the same.
func makeSecrets(path string) ([]byte, error) {
	s := Secrets{
		OrderKeys: map[string]string{"1": randomHex()}, TicketKeys: map[string]string{"1": randomHex()},
		TicketKey: 1, TokenSeed: randomHex(),
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(dir, "secrets-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(append(b, '\n'))
	if err := errors.Join(err, tmp.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(path)
}

func randomHex() string {
	var b [keyLen]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// numbered decodes numbered keys.
func numbered(what string, keys map[string]string) (map[int][]byte, error) {
	out := make(map[int][]byte, len(keys))
	for number, digits := range keys {
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("secrets: %s: %q is not a number", what, number)
		}
		key, err := hex.DecodeString(digits)
		if err != nil || len(key) < keyLen {
			return nil, fmt.Errorf("secrets: %s %d: want at least %d bytes in hex", what, n, keyLen)
		}
		out[n] = key
	}
	return out, nil
}

// tokenKey is the key that signs tokens.
func (s *Secrets) tokenKey() (ed25519.PrivateKey, error) {
	seed, err := hex.DecodeString(s.TokenSeed)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("secrets: token_seed: want %d bytes in hex", ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
