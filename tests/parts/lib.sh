# shellcheck shell=bash
# Shared by the scripts of this directory; sourced, never run.
#
# Everything lives outside the checkout, under $PARTS:
#   roots/SUITE   Debian trees that hold the engines and the tools
#   data/NAME     what a part stores
#   run/          sockets, pid files, logs, ports, bin/, parts.env

set -euo pipefail

# The client settings of whoever calls must not leak into what runs here.
# shellcheck disable=SC2086
unset DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG DOCKER_BUILDKIT DOCKER_API_VERSION DOCKER_DEFAULT_PLATFORM \
    DOCKER_CERT_PATH DOCKER_CONTENT_TRUST REGISTRY_AUTH_FILE ${!DOCKER_TLS@} ${!BUILDX_@} ${!BUILDKIT_@} ${!REGISTRY_@}
export LC_ALL=C

# Package tools live in the sbin directories, which a user's PATH may lack.
PATH=$PATH:/usr/sbin:/sbin

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PARTS=${HAKOBI_PARTS:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/hakobi-parts}
ROOTS=$PARTS/roots
DATA=$PARTS/data
RUN=$PARTS/run
ALL_PARTS=(registry registry-open d20 d28 c28)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

kind_of() {
    case $1 in
        d20 | d28 | c28) echo engine ;;
        registry | registry-open) echo registry ;;
        *) die "no part is called '$1'; there are: ${ALL_PARTS[*]}" ;;
    esac
}

prepare() {
    [[ $EUID = 0 ]] || die "must run as root: engines need mounts"
    # A unix socket's path holds at most 107 bytes.
    local socket=$RUN/d28.sock
    ((${#socket} < 100)) || die "$RUN is too long for a socket; set HAKOBI_PARTS to a shorter directory"
    mkdir -p "$ROOTS" "$DATA" "$RUN/bin"
}

# with_lock NAME COMMAND…: one at a time per name. The lock is let go by parts themselves: they are started with 9 closed.
with_lock() {
    local name=$1
    shift
    {
        flock 9
        "$@"
    } 9>"$RUN/$name.lock"
}

# A part's process is named by pid and start time, so that a stale pid file never points at a stranger.
start_time() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    # Fields after the command name, which may hold anything: state is the first, start time the 20th.
    # shellcheck disable=SC2206
    local fields=(${stat##*) })
    [[ ${fields[0]} != Z ]] || return 1
    echo "${fields[19]}"
}

remember() { # NAME PID
    echo "$2 $(start_time "$2")" >"$RUN/$1.proc"
}

# pid_of NAME: prints the pid if the part runs, fails if it does not.
pid_of() {
    local pid='' started=''
    { read -r pid started <"$RUN/$1.proc"; } 2>/dev/null || return 1
    [[ -n $pid && $(start_time "$pid") = "$started" ]] || return 1
    echo "$pid"
}

wait_for() { # SECONDS COMMAND…: until the command succeeds
    local ends=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@" >/dev/null 2>&1; do
        ((${EPOCHREALTIME/./} < ends)) || return 1
        sleep 0.05
    done
}

# ld_so ROOT and libraries ROOT: a root's programs run on the host through the root's own loader, whatever libc the host has.
ld_so() {
    local found
    # Not the one in lib64: it may be an absolute link, which on the host leads to the host's.
    for found in "$1"/usr/lib/*-linux-gnu*/ld-linux*.so.*; do
        [[ -f $found && ! -L $found ]] && echo "$found" && return
    done
    die "no loader in $1"
}
libraries() { printf '%s:%s\n' "$1"/usr/lib/*-linux-gnu* "$1/usr/lib"; }
