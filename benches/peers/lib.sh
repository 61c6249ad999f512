# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts use what is set here
# Shared by the scripts of this directory; sourced, never run.
#
# Everything lives outside the checkout, in $BENCH. It is a parts directory of its own (tests/parts), so that benchmarks
# and tests may run at the same time, and it shares the Debian trees with the tests' one:
#   PROJECT/BASE/     OCI layout of a base image, and its size, in words
#   PROJECT/context/  the project, ready to build
#   PROJECT/made      what it was made for; there once all of it is made
#   rust/crates/      what crates.io has of the crates in that project
#   aws/              the AWS command line
#   data/ run/        as in every parts directory     jobs/   contexts and logs of the last run

. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../../tests/parts/lib.sh"
PEERS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BENCH=$PARTS/bench
CRATES_PORT=24901
. "$PEERS/projects.sh"

size_of() { echo "$(du -s --apparent-size -BMB "$1" | sed 's/MB.*//') MB in $(find "$1" ! -type d | wc -l) files"; }
