# shellcheck shell=bash
# Starts and stops Docker engines; sourced.

# A name for the part's processes and cgroups on this machine, whatever other cache directories have parts running.
mark_of() {
    local sum
    sum=$(cksum <<<"$RUN")
    echo "hakobi-${sum%% *}-$1"
}

# All processes of an engine, also after its daemon died: what it started carries its mark, containers are in its cgroup.
engine_processes() {
    local mark file
    mark=$(mark_of "$1")
    # Processes come and go while it looks, which grep reports as a failure.
    { grep -lszxF "HAKOBI_PART=$mark" /proc/[0-9]*/environ || true; } | cut -d/ -f3
    # One hierarchy of cgroup v1 will do.
    for file in /sys/fs/cgroup/{,pids/}"$mark"; do
        [[ ! -d $file ]] || find "$file" -name cgroup.procs -exec cat {} +
    done
}

engine_kill_rest() { # NAME
    local pids mark dir
    while mapfile -t pids < <(engine_processes "$1") && ((${#pids[@]})); do
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.02
    done
    mark=$(mark_of "$1")
    for dir in /sys/fs/cgroup/{,*/}"$mark"; do
        [[ ! -d $dir ]] || find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

engine_start() { # NAME
    local name=$1 options=() root
    root=$ROOTS/$(suite_of "$name")
    mkdir -p "$DATA/$name"
    rm -f "$RUN/$name.sock" "$RUN/$name.pid"
    # Which store is the default depends on the version, and so does whether --iptables=false leaves IPv6 alone.
    case $name in
        d20) options=(--storage-driver overlay2) ;;
        d28) options=(--storage-driver overlay2 --feature containerd-snapshotter=false --ip6tables=false) ;;
        c28) options=(--feature containerd-snapshotter=true --ip6tables=false) ;;
    esac
    # Only loopback registries and the host's network: nothing of the host's firewall or routes is touched.
    setsid unshare -m "$HERE/enter-root" "$(mark_of "$name")" "$root" "$RUN=/run/host" "$DATA/$name=/data" -- \
        dockerd -H "unix:///run/host/$name.sock" --pidfile "/run/host/$name.pid" \
        --data-root /data --exec-root /run/docker --cgroup-parent "/$(mark_of "$name")" \
        --bridge none --iptables=false --ip-forward=false --ip-masq=false "${options[@]}" \
        </dev/null >"$RUN/$name.log" 2>&1 9>&- &
    remember "$name" $!
}

engine_answers() { [[ -S $RUN/$1.sock ]] && "$RUN/bin/docker" -H "unix://$RUN/$1.sock" version; }

engine_version() { "$RUN/bin/docker" -H "unix://$RUN/$1.sock" version --format '{{.Server.Version}}'; }
