# shellcheck shell=bash
# Starts registries; sourced.

USER_NAME=AWS # as for ECR

# Ports stay the same as long as $RUN does, so that images keep their names. Below the range of outgoing connections.
port_of() { # NAME
    local port
    if [[ ! -e $RUN/$1.port ]]; then
        until port=$((20000 + RANDOM % 12000)) && port_free "$port"; do :; done
        keep "$RUN/$1.port" "$port"
    fi
    cat "$RUN/$1.port"
}
# keep FILE TEXT: unless another got there first
keep() {
    echo "$2" >"$1.$BASHPID"
    ln "$1.$BASHPID" "$1" 2>/dev/null || true
    rm "$1.$BASHPID"
}
port_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

password() {
    [[ -e $RUN/password ]] || keep "$RUN/password" "$(random_hex 12)"
    cat "$RUN/password"
}

# The registry takes bcrypt only; the tree's perl and libc can do that.
write_htpasswd() {
    local salt
    salt=$(random_hex 11)
    # shellcheck disable=SC2016
    printf '%s:%s\n' "$USER_NAME" "$(chroot "$ROOTS/bookworm" perl -e 'print crypt($ARGV[0], $ARGV[1])' "$(password)" "\$2b\$05\$$salt")" \
        >"$RUN/htpasswd"
}

registry_start() { # NAME
    local name=$1 root=$ROOTS/bookworm port
    port=$(port_of "$name")
    if ! port_free "$port"; then
        say "port $port, which $name had, is taken; choosing another"
        rm "$RUN/$name.port"
        port=$(port_of "$name")
    fi
    mkdir -p "$DATA/$name"
    cat >"$RUN/$name.yml" <<END
version: 0.1
log: {level: info, accesslog: {disabled: false}}
storage:
  filesystem: {rootdirectory: "$DATA/$name"}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: "127.0.0.1:$port", secret: hakobi}
END
    if [[ $name = registry ]]; then
        write_htpasswd
        printf 'auth: {htpasswd: {realm: test, path: "%s"}}\n' "$RUN/htpasswd" >>"$RUN/$name.yml"
    fi
    setsid env -i PATH="$PATH" "$(ld_so "$root")" --library-path "$(libraries "$root")" --argv0 docker-registry \
        "$root/usr/bin/docker-registry" serve "$RUN/$name.yml" </dev/null >"$RUN/$name.log" 2>&1 9>&- &
    remember "$name" $!
}

# Any answer to /v2/ will do: without credentials, 401 is the right one.
registry_answers() {
    local line
    exec 3<>"/dev/tcp/127.0.0.1/$(<"$RUN/$1.port")" || return 1
    printf 'GET /v2/ HTTP/1.0\r\n\r\n' >&3
    IFS= read -r -t 2 line <&3 || line=''
    exec 3>&-
    [[ $line = HTTP/1.?\ [24]0[01]* ]]
}
