# shellcheck shell=bash
# Builds the Debian trees under $ROOTS; sourced by up.

# The engines by suite. What a test calls besides dockerd sits in the newest tree.
suite_of() {
    case $1 in
        d20 | registry | registry-open) echo bookworm ;;
        d28 | c28) echo sid ;;
    esac
}
# shellcheck disable=SC2054 # debootstrap wants commas
declare -A PACKAGES=(
    [bookworm]=docker.io,docker-registry,busybox-static,ca-certificates,iptables,procps
    [sid]=docker.io,docker-cli,docker-buildx,skopeo,netavark,crane,oras,buildah,ca-certificates,git,iptables,procps
)

# The mirror this machine's apt takes Debian from; Debian's own if it takes none (Ubuntu).
mirror() {
    local found
    found=${HAKOBI_PARTS_MIRROR:-$(apt-cache policy 2>/dev/null | awk '
        $2 ~ /^https?:/ { url = $2 }
        $1 == "release" && /o=Debian,/ && /l=Debian(,|$)/ && url != "" { print url; exit }')}
    echo "${found:-http://deb.debian.org/debian}"
}

# apt's proxy, for debootstrap, which reads only the environment.
use_apt_proxy() {
    local proxy
    proxy=$(apt-config dump --format '%v' Acquire::http::Proxy 2>/dev/null || true)
    [[ -z $proxy || $proxy = DIRECT ]] || export http_proxy="$proxy" https_proxy="$proxy"
}

# debootstrap is unpacked beside the roots, not installed: the machine stays as it was but for a missing wget or gpgv.
get_debootstrap() {
    local tools=$ROOTS/tools missing=()
    command -v wget >/dev/null || missing+=(wget)
    command -v gpgv >/dev/null || missing+=(gpgv)
    if [[ -e $tools/done && ${#missing[@]} = 0 ]]; then return; fi
    say "fetching debootstrap"
    apt-get -qq update || say "apt-get update failed; going on with the lists that are there"
    [[ ${#missing[@]} = 0 ]] ||
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" ca-certificates >"$RUN/apt.log" 2>&1 ||
        die "apt-get could not install ${missing[*]}; see $RUN/apt.log"
    rm -rf "$tools"
    mkdir -p "$tools"
    (
        cd "$tools" || exit
        apt-get -qq -o APT::Sandbox::User=root download debootstrap debian-archive-keyring >&2
        for deb in *.deb; do dpkg -x "$deb" .; done
    )
    touch "$tools/done"
}

# Whether a root is there that was made of today's list.
has_root() { [[ $(cat "$ROOTS/$1/.packages" 2>/dev/null) = "${PACKAGES[$1]}" ]]; } # SUITE

# A root is whole once it has its name: it is built under another.
build_root() { # SUITE
    local suite=$1 tools=$ROOTS/tools building=$ROOTS/$1.building keys log=$RUN/debootstrap-$1.log
    ! has_root "$suite" || return 0
    get_debootstrap
    use_apt_proxy
    # Bookworm's keyring knows the later keys too, and an older host's may not.
    keys=$ROOTS/bookworm/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -e $keys ]] || keys=$tools/usr/share/keyrings/debian-archive-keyring.gpg
    say "building the $suite tree (about a minute; $log)"
    rm -rf "$building"
    # No waiting for the disk, and nothing to read.
    mkdir -p "$building/etc/dpkg/dpkg.cfg.d"
    printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' \
        'path-exclude=/usr/share/locale/*' >"$building/etc/dpkg/dpkg.cfg.d/hakobi"
    # In a mount namespace of its own, so that nothing stays mounted if this is interrupted.
    DEBOOTSTRAP_DIR=$tools/usr/share/debootstrap unshare -m sh "$tools/usr/sbin/debootstrap" --variant=minbase \
        --keyring="$keys" --include="${PACKAGES[$suite]}" "$suite" "$building" "$(mirror)" >"$log" 2>&1 || {
        tail -5 "$log" >&2
        die "debootstrap of $suite failed; see $log"
    }
    rm -rf "$building"/var/cache/apt/archives/*.deb "$building"/var/lib/apt/lists/*
    echo "${PACKAGES[$suite]}" >"$building/.packages"
    [[ ! -e $ROOTS/$suite ]] || leave_root "$suite"
    mv "$building" "$ROOTS/$suite"
}

# An older list's root goes, once nothing runs from it.
leave_root() { # SUITE
    local part
    for part in "${ALL_PARTS[@]}"; do
        [[ $(suite_of "$part") != "$1" ]] || "$HERE/down" "$part"
    done
    rm -rf "$ROOTS/$1"
}
