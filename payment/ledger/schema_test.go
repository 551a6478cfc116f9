package ledger_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

var update = flag.Bool("update", false, "write testdata/schema.txt anew")

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

// The schema as it is after all migrations stands in git, so that a change of it
// is seen in review. To write it anew: go test ./payment/ledger -run Schema -update
func TestSchemaIsTheOneInGit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rows, err := b.pool.Query(t.Context(), catalog)
	must(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	got := strings.Join(lines, "\n") + "\n"
	const file = "testdata/schema.txt"
	if *update {
		must(t, os.WriteFile(file, []byte(got), 0o600))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("the schema is not that of %s; if it is meant to change: go test ./payment/ledger -run Schema -update\ngot:\n%s", file, got)
	}
}
