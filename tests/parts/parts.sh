# shellcheck shell=bash
# Starting, waiting for and stopping a part, whatever its kind; sourced.

part_running() { pid_of "$1" >/dev/null; }

part_start() { # NAME; leftovers of a daemon that died are cleared first
    part_running "$1" && return
    part_stop "$1" 0
    "$(kind_of "$1")_start" "$1"
}

part_wait() { # NAME
    wait_for 60 part_up_or_dead "$1" || true
    part_running "$1" && "$(kind_of "$1")_answers" "$1" >/dev/null 2>&1 && return
    tail -n 20 "$RUN/$1.log" >&2
    die "$1 does not answer; its log is $RUN/$1.log"
}
part_up_or_dead() { ! part_running "$1" || "$(kind_of "$1")_answers" "$1"; }

part_ask_to_stop() {
    local pid
    if pid=$(pid_of "$1"); then kill -TERM "$pid" 2>/dev/null || true; fi
}

part_stop() { # NAME SECONDS: given that long to end if it has been asked to, then killed
    local pid
    if pid=$(pid_of "$1"); then
        wait_for "$2" part_gone "$1" || true
        kill -KILL "$pid" 2>/dev/null || true
        wait_for 10 part_gone "$1" || die "$1 (pid $pid) cannot be killed"
    fi
    [[ $(kind_of "$1") != engine ]] || engine_kill_rest "$1"
    rm -f "$RUN/$1.proc" "$RUN/$1.pid" "$RUN/$1.sock"
}
part_gone() { ! part_running "$1"; }
