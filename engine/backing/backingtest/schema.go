package backingtest

import (
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// catalog lists every object of the schema, a line each, in an order of its own.
const catalog = `
SELECT line FROM (
	SELECT c.relname AS of, 1 AS part, a.attnum::int AS at, format('  %s %s%s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
		CASE WHEN co.collname <> 'default' THEN ' COLLATE "' || co.collname || '"' END, CASE WHEN a.attnotnull THEN ' NOT NULL' END,
		CASE WHEN a.attidentity <> '' THEN ' IDENTITY' END, ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
		|| CASE WHEN a.attstorage = 'e' THEN ' EXTERNAL' ELSE '' END AS line
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
	LEFT JOIN pg_collation co ON co.oid = a.attcollation
	WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
	UNION ALL
	SELECT c.relname, 0, 0, format('%s%s', CASE c.relkind WHEN 'r' THEN 'table ' ELSE 'sequence ' END || c.relname, ' WITH (' || array_to_string(c.reloptions, ', ') || ')')
	FROM pg_class c WHERE c.relkind IN ('r', 'S') AND c.relnamespace = 'public'::regnamespace
	UNION ALL
	SELECT c.relname, 2, 0, format('  constraint %s %s', k.conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
	WHERE c.relnamespace = 'public'::regnamespace
	UNION ALL
	SELECT tablename, 3, 0, '  ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
) x WHERE of NOT LIKE 'schema\_%' ORDER BY of COLLATE "C", part, at, line COLLATE "C"`

// Schema compares the schema of the database at url with a file in git, so that a
// change of it is seen in review. With UPDATE set the file is written anew. The
// tables of migration versions (schema_…) are left out.
func Schema(t testing.TB, url, file string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), catalog)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(lines, "\n") + "\n"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("the schema is not that of %s (%v); if it is meant to change, set UPDATE=1 and run the test again\ngot:\n%s", file, err, got)
	}
}
