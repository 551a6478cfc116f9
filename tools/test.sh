#!/usr/bin/env bash
# The second half of `make test`: both builds, vet, and every test with the race
# detector on private servers, which are stopped at the end whatever happens. A
# skipped test is a failure here. Expects bin/doorbuster and bin/testreport.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

state=.doorbuster/test
begun=$SECONDS

step() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - begun)); }

passed=no
tests=
finish() {
	code=$?
	trap - EXIT
	trap '' INT TERM HUP # whoever cut this off may do so twice; the servers must go
	[ -z "$tests" ] || kill -- "-$tests" 2>/dev/null || true
	step "stopping the servers"
	bin/doorbuster down --dir "$state" --wipe || code=1
	[ "$passed" = yes ] || [ "$code" -ne 0 ] || code=1
	if [ "$code" -eq 0 ]; then
		printf '\nmake test: PASS in %d s\n' $((SECONDS - begun))
	else
		printf '\nmake test: FAIL (exit status %d) after %d s\n' "$code" $((SECONDS - begun))
	fi
	exit "$code"
}

step "vet, and the build without the market"
go vet ./...
go test -C tools ./testreport ./shifted
go build -buildvcs=false -tags nomarket ./...
go vet -tags failpoint ./engine/failpoint ./cmd/doorbuster
go test -tags failpoint ./engine/failpoint

step "20,000 stories of services that fail"
GOGC=600 DOORBUSTER_STORIES=20000 go test -count=1 -run TestStories ./loadtest/simulate

step "private servers"
bin/doorbuster down --dir "$state" --wipe # of a run that was cut off
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
# With monitoring, because the tests of board and alerts need its programs.
exports=$(bin/doorbuster up --dir "$state" --env --with-monitoring)
eval "$exports"
export DOORBUSTER_REQUIRE_SERVERS=1

step "tests, with the race detector"
# Two packages at a time, whatever the number of cores: they share the servers.
# In a process group of its own (set -m), which ends with this script.
set -m
(go test -json -race -count=1 -p 2 -timeout 12m ./... | bin/testreport) &
tests=$!
set +m
wait "$tests"
tests=
passed=yes
