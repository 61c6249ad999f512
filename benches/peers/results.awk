# Reads what `medians` prints, one result a line, for table and chart: rows in their order, and what is known of each peer in them.

# The value of a name in this line, or nothing.
function field(name,    text) {
    if (!match($0, "\"" name "\":(\"[^\"]*\"|[0-9.]+)")) return ""
    text = substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3)
    gsub(/"/, "", text)
    return text
}

function words(key) { return key in WORDS ? WORDS[key] : key }

BEGIN {
    WORDS["c28"] = "Docker 28.5, containerd store"
    WORDS["d28"] = "Docker 28.5, overlay2"
    WORDS["d20"] = "Docker 20.10, overlay2"
    WORDS["cold"] = "cold"
    WORDS["unchanged"] = "nothing changed"
    WORDS["source"] = "one source file changed"
    WORDS["plain"] = "docker build, no cache"
    WORDS["warm"] = "docker build, machine that stays"
    WORDS["archive"] = "docker save tarballs"
    WORDS["recipe"] = "docker pull latest"
    WORDS["buildx"] = "buildx registry cache"
    WORDS["hakobi"] = "hakobi, cache beside the image"
    WORDS["store"] = "hakobi, store in S3"
    PEERS = split("plain archive recipe buildx hakobi store warm", PEER, " ")
    SCENARIOS = split("cold unchanged source", SCENARIO, " ")
}

NR == 1 { for (i = split("date cores rate_mbit runs", names, " "); i; i--) ABOUT[names[i]] = field(names[i]) }

/"peer":/ {
    row = field("engine") SUBSEP field("project")
    if (!(row in seen)) { seen[row] = 1; ROW[++ROWS] = row }
    peer = field("peer")
    has[row, peer] = 1
    some[peer] = 1
    at = row SUBSEP field("scenario")
    any[at] = 1
    seconds[at, peer] = field("seconds")
    pushed[at, peer] = field("pushed_seconds")
    down[at, peer] = field("mb_down")
    up[at, peer] = field("mb_up")
    compiled[at, peer] = field("compiled")
    if (seconds[at, peer] + 0 > longest) longest = seconds[at, peer] + 0
}

# The fastest of some peers in a row, which is a list; nothing if none was measured.
function fastest(at, peers,    n, i, name, best) {
    n = split(peers, name, " ")
    for (i = 1; i <= n; i++) {
        if (!((at, name[i]) in seconds)) continue
        if (best == "" || seconds[at, name[i]] + 0 < seconds[at, best] + 0) best = name[i]
    }
    return best
}
