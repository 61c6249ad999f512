# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts use what is set here
# Shared by the scripts of this directory; sourced, never run.
#
# Everything lives outside the checkout, in $BENCH. It is a parts directory of its own (tests/parts), so that benchmarks
# and tests may run at the same time, and it shares the Debian trees with the tests' one:
#   base/      OCI layout of the base image         deps/      the wheels
#   context/   the project, ready to build          project    its size, in words; there once all of it is made
#   key        what it was made for
#   data/ run/ as in every parts directory          jobs/      contexts and logs of the last run

. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../../tests/parts/lib.sh"
PEERS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BENCH=$PARTS/bench
IMAGE=bench/python # the base, in the open registry
