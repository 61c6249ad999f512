# shellcheck shell=bash
# What is compared; sourced by run. Each is one CI job: from a wiped daemon to pushed tags.
#
# Called in the job's context directory, with REPO, BASES, TAG, PROJECT and ENGINE set and DOCKER_HOST in the environment; must leave
# REPO:TAG and REPO:latest in the registry. One that goes on after that calls `pushed` first. AWS is the AWS command line with
# S3's variables set, KEY a name there that is the job's own.

pushed() { echo "${EPOCHREALTIME/./}" >"$HOME/pushed"; }

# Whether a peer can do it: with overlay2, the daemon's BuildKit exports no cache to a registry, and the classic builder knows no
# mounts.
can() { # ENGINE PEER PROJECT
    case $2 in
        buildx) [[ $1 = c28 ]] ;;
        archive) ! has_mounts "$3" ;;
    esac
}

# Without any cache: what most machines do.
peer_plain() {
    DOCKER_BUILDKIT=1 "$DOCKER" build --network host --build-arg "BASES=$BASES" -t "$REPO:$TAG" -t "$REPO:latest" . &&
        "$DOCKER" push "$REPO:$TAG" &&
        "$DOCKER" push "$REPO:latest"
}

# The same on a machine that never went away, with its daemon and its checkout: nothing can be much faster.
peer_warm() { peer_plain; }

# The other recipe: tarballs of `docker save` in S3. The classic builder is the one that takes cache from loaded images on
# every engine, and loses none of it from run to run.
peer_archive() {
    local tarball=s3://cache/$KEY.tar.gz
    if "$AWS" s3 ls "$tarball"; then
        "$AWS" s3 cp --no-progress "$tarball" - | gunzip | "$DOCKER" load || return
    fi
    DOCKER_BUILDKIT=0 "$DOCKER" build --network host --build-arg "BASES=$BASES" --cache-from "$REPO:latest" \
        -t "$REPO:$TAG" -t "$REPO:latest" . &&
        "$DOCKER" push "$REPO:$TAG" &&
        "$DOCKER" push "$REPO:latest" || return
    pushed
    "$DOCKER" save "$REPO:latest" | gzip | "$AWS" s3 cp --no-progress - "$tarball"
}

peer_store() { with_store; }

# The same on a machine without a running daemon, whose Docker has the data root in S3.
peer_lazy() {
    local features=''
    [[ $ENGINE != c28 ]] || features=',"features":{"containerd-snapshotter":true}'
    printf '{"bridge":"none"%s}\n' "$features" >"$HOME/daemon.json"
    PATH=$HERE/installed:$PATH HAKOBI_TEST_ROOT=$ROOTS/$(suite_of "$ENGINE") DOCKER_HOST=unix:///nowhere \
        with_store --daemon lazy --daemon-config "$HOME/daemon.json"
}

with_store() { # OPTION…
    local more=("$@")
    [[ $PROJECT != *-auto ]] || more+=(--auto-mounts)
    "$HAKOBI" build "${more[@]}" --network host --build-arg "BASES=$BASES" --cache "s3://cache/$KEY" --cache-scope main \
        -t "$REPO:$TAG" -t "$REPO:latest" --push --report "$HOME/report.json" . || return
    # It pushes first, then it keeps what the next run needs: records and layers, cache mounts, and a daemon's disk.
    awk -v now="${EPOCHREALTIME/./}" 'match($0, /"save": *[0-9.]+/) {
        split(substr($0, RSTART, RLENGTH), part, ":"); saved += part[2] }
        END { printf "%.0f\n", now - saved * 1000000 }' "$HOME/report.json" >"$HOME/pushed"
}

# The recipe of the documentation of build services, by hand.
peer_recipe() {
    "$DOCKER" pull "$REPO:latest" || echo '(no latest yet)'
    DOCKER_BUILDKIT=1 "$DOCKER" build --network host --build-arg "BASES=$BASES" --cache-from "$REPO:latest" \
        --build-arg BUILDKIT_INLINE_CACHE=1 -t "$REPO:$TAG" -t "$REPO:latest" . &&
        "$DOCKER" push "$REPO:$TAG" &&
        "$DOCKER" push "$REPO:latest"
}

# BuildKit's own cache, of all stages, in the registry. That it has pushed, before it exports the cache, only its log says.
peer_buildx() {
    "$DOCKER" buildx build --progress plain --network host --build-arg "BASES=$BASES" \
        --cache-from "type=registry,ref=$REPO:cache" --cache-to "type=registry,ref=$REPO:cache,mode=max" \
        -t "$REPO:$TAG" -t "$REPO:latest" --push . 2>&1 |
        while IFS= read -r line; do
            printf '%s\n' "$line"
            [[ $line != *"pushing manifest for $REPO:"*' done' ]] || pushed
        done
}

peer_hakobi() {
    "$HAKOBI" build --network host --build-arg "BASES=$BASES" --cache-from "$REPO:latest" \
        -t "$REPO:$TAG" -t "$REPO:latest" --push .
}
