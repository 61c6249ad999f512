# shellcheck shell=bash
# Writes the client programs of $RUN/bin; sourced by up. Each runs the newest tree's program on the host, through the
# tree's own loader, with settings that are not the user's.

wrapper() { # NAME PROGRAM [LINES BEFORE [ARGUMENTS BEFORE]]
    local root=$ROOTS/sid loader
    loader=$(ld_so "$root")
    cat >"$RUN/bin/$1.new" <<END
#!/bin/sh
${3:-}
exec '$loader' --library-path '$(libraries "$root")' --argv0 '$1' '$root$2' ${4:-} "\$@"
END
    chmod +x "$RUN/bin/$1.new"
    mv "$RUN/bin/$1.new" "$RUN/bin/$1"
}

write_tools() {
    local plugin
    mkdir -p "$RUN/docker-config" "$RUN/home"
    plugin=$(cd "$ROOTS/sid" && echo usr/lib*/docker/cli-plugins/docker-buildx)
    wrapper docker-buildx "/$plugin"
    # The caller's DOCKER_HOST and DOCKER_CONFIG count, the user's own ~/.docker does not. Plugins are looked for in the
    # configuration directory and in the host's, so the right one is put in the first.
    wrapper docker /usr/bin/docker "unset DOCKER_CONTEXT DOCKER_API_VERSION DOCKER_DEFAULT_PLATFORM DOCKER_CERT_PATH DOCKER_TLS DOCKER_TLS_VERIFY
unset BUILDX_BUILDER BUILDX_CONFIG
if [ -z \"\${DOCKER_CONFIG:-}\" ] || [ \"\$DOCKER_CONFIG\" = \"\${HOME:-/root}/.docker\" ]; then DOCKER_CONFIG='$RUN/docker-config'; fi
export DOCKER_CONFIG
if [ ! -e \"\$DOCKER_CONFIG/cli-plugins/docker-buildx\" ]; then
    mkdir -p \"\$DOCKER_CONFIG/cli-plugins\" && ln -sf '$RUN/bin/docker-buildx' \"\$DOCKER_CONFIG/cli-plugins/docker-buildx\"
fi"
    # skopeo and crane know the password: what they are for is looking.
    printf '{"auths":{"127.0.0.1:%s":{"auth":"%s"}}}\n' "$(port_of registry)" \
        "$(printf %s "$USER_NAME:$(password)" | base64 -w0)" >"$RUN/home/config.json"
    : >"$RUN/home/registries.conf"
    for port in "$(port_of registry)" "$(port_of registry-open)"; do
        printf '[[registry]]\nlocation = "127.0.0.1:%s"\ninsecure = true\n' "$port" >>"$RUN/home/registries.conf"
    done
    wrapper skopeo /usr/bin/skopeo "export HOME='$RUN/home' REGISTRY_AUTH_FILE='$RUN/home/config.json'" \
        "--insecure-policy --registries-conf '$RUN/home/registries.conf'"
    wrapper crane /usr/bin/crane "export HOME='$RUN/home' DOCKER_CONFIG='$RUN/home'; unset REGISTRY_AUTH_FILE"
    wrapper oras /usr/bin/oras "export HOME='$RUN/home' DOCKER_CONFIG='$RUN/home'"
    write_buildah
}

# It starts itself again to unpack layers, so it runs in its tree, with the host's network and /tmp and without a sandbox of
# its own.
write_buildah() {
    local root=$ROOTS/sid
    mkdir -p "$root/etc/containers"
    echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$root/etc/containers/policy.json"
    cat >"$RUN/bin/buildah.new" <<END
#!/bin/sh
export HOME=/root BUILDAH_ISOLATION=chroot
exec unshare -m sh -c 'mount --rbind /tmp "\$0/tmp" && mount --rbind /dev "\$0/dev" && mount -t proc proc "\$0/proc" &&
    exec chroot "\$0" /usr/bin/buildah --storage-driver vfs "\$@"' '$root' "\$@"
END
    chmod +x "$RUN/bin/buildah.new"
    mv "$RUN/bin/buildah.new" "$RUN/bin/buildah"
}
