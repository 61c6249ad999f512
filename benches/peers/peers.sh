# shellcheck shell=bash
# What is compared; sourced by run. Each is one CI job: from a wiped daemon to pushed tags.
#
# Called in the job's context directory, with REPO, BASE and TAG set and DOCKER_HOST in the environment; must leave
# REPO:TAG and REPO:latest in the registry.

# The recipe of the documentation of build services, by hand.
peer_recipe() {
    "$DOCKER" pull "$REPO:latest" || echo '(no latest yet)'
    DOCKER_BUILDKIT=1 "$DOCKER" build --network host --build-arg "BASE=$BASE" --cache-from "$REPO:latest" \
        --build-arg BUILDKIT_INLINE_CACHE=1 -t "$REPO:$TAG" -t "$REPO:latest" . &&
        "$DOCKER" push "$REPO:$TAG" &&
        "$DOCKER" push "$REPO:latest"
}

peer_hakobi() {
    "$HAKOBI" build --network host --build-arg "BASE=$BASE" --cache-from "$REPO:latest" \
        -t "$REPO:$TAG" -t "$REPO:latest" --push .
}
