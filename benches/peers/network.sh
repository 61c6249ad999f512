# shellcheck shell=bash
# The network that the registry and S3 are behind; sourced by run, inside a network namespace of its own (unshare -n).
#
# They get a second namespace, and everything between the two goes over a veth pair with a rate limit each way:
# what passes there is the job's traffic and no one else's. To engines and clients they stay 127.0.0.1:PORT, so that
# these need no settings: a rule sends those ports over the link.

NEAR=10.0.0.1 FAR=10.0.0.2
FAR_PID='' # holds the far namespace

network_up() { # MBIT
    [[ -n $(command -v ip) && -n $(command -v tc) ]] || die 'ip and tc are missing: apt-get install iproute2'
    unshare -n sleep infinity </dev/null >/dev/null 2>&1 9>&- &
    FAR_PID=$!
    wait_for 5 far_is_apart || die 'no second network namespace'
    ip link set lo up
    ip link add link0 type veth peer name link1 netns "$FAR_PID"
    one_end link0 "$NEAR" "$1"
    far bash -c "$(declare -f one_end); set -e; ip link set lo up; one_end link1 $FAR $1"
}

far_is_apart() { [[ $(readlink "/proc/$FAR_PID/ns/net") != $(readlink /proc/self/ns/net) ]]; }

one_end() { # INTERFACE ADDRESS MBIT
    # Loopback addresses are to pass here, which the kernel refuses unless told.
    echo 1 >"/proc/sys/net/ipv4/conf/$1/route_localnet"
    echo 1 >"/proc/sys/net/ipv4/conf/$1/accept_local"
    echo 0 >"/proc/sys/net/ipv4/conf/$1/rp_filter"
    echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
    ip addr add "$2/30" dev "$1"
    ip link set "$1" up
    tc qdisc add dev "$1" root tbf rate "$3mbit" burst 256k latency 100ms
}

# network_to PORT…: 127.0.0.1:PORT is now the far one.
network_to() {
    local port
    ip route add 127.0.0.1 via "$FAR" dev link0 src "$NEAR" table 100
    for port; do ip rule add pref 5 ipproto tcp dport "$port" lookup 100; done
    # The table of local addresses comes before all rules; put it behind.
    ip rule add pref 10 lookup local
    ip rule del pref 0
}

far() { nsenter --net="/proc/$FAR_PID/ns/net" "$@"; }
exec_far() { exec nsenter --net="/proc/$FAR_PID/ns/net" "$@"; }

network_down() { [[ -z $FAR_PID ]] || kill "$FAR_PID" 2>/dev/null || true; }

# Bytes received and sent so far, headers included.
network_bytes() { awk '$1 == "link0:" { print $2, $10 }' /proc/net/dev; }
