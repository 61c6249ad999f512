# shellcheck shell=bash
# Projects whose RUN keeps something in a cache mount; sourced by projects.sh, which says what is here for each. Every one is built in
# a stage, so that the image has the result alone.
#
# Each also goes by the name NAME-plain: the same without its mounts, for who cannot carry them. As NAME-auto it has none either, and
# hakobi with a store gives it those that it finds by itself (--auto-mounts).

has_mounts() { [[ $1 = @(rust|make|npm) ]]; } # PROJECT

# plainly DOCKERFILE: without the mounts.
plainly() { sed -i 's/ --mount=type=cache,[^ ]*//g' "$1"; }

# A web service in three packages of its own, on 150 from crates.io. The crates come over the link, from a copy of the
# registry that `run` keeps there: builds have no other network. As for everyone with a mirror, cargo's settings name it.
context_rust() {
    local number
    cp -R "$PEERS"/rust/. .
    get_crates ../crates # before the builds' own settings are here
    mkdir .cargo model/src/kinds service/src/routes
    printf '%s\n' '[source.crates-io]' 'replace-with = "mirror"' '[source.mirror]' \
        "registry = \"sparse+http://127.0.0.1:$CRATES_PORT/\"" >.cargo/config.toml
    cat >Dockerfile <<'END'
ARG BASES
FROM ${BASES}/rust AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked && cp target/debug/app /usr/local/bin/app

FROM ${BASES}/runtime-small
COPY --from=build /usr/local/bin/app /usr/local/bin/app
CMD ["app"]
END
    {
        echo '//! The kinds of items.'
        for number in {0..7}; do printf '\nmod kind%d;\npub use kind%d::Item%d;\n' "$number" "$number" "$number"; done
    } >model/src/kinds.rs
    {
        printf '//! The routes of all kinds.\n\n'
        for number in {0..7}; do echo "mod route$number;"; done
        printf '\n/// Returns all of them.\npub fn all() -> axum::Router<crate::Shared> {\n    axum::Router::new()\n'
        for number in {0..7}; do echo "        .merge(route$number::routes())"; done
        echo '}'
    } >service/src/routes.rs
    for number in {0..7}; do
        sed "s/NUMBER/$number/g" >"model/src/kinds/kind$number.rs" <<'END'
//! Items of kind NUMBER.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use regex::Regex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Refused;

static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[a-z][a-z0-9-]{NUMBER,40}$").ok());

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ItemNUMBER {
    pub id: Uuid,
    pub name: String,
    pub count: u64,
    pub made: DateTime<Utc>,
    #[serde(default)]
    pub state: State,
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    New,
    Taken,
    Done,
}

impl ItemNUMBER {
    pub fn checked(name: &str, count: u64) -> Result<Self, Refused> {
        if !NAME.as_ref().is_some_and(|pattern| pattern.is_match(name)) {
            return Err(Refused::Name(name.to_owned()));
        }
        if count > 1000 + NUMBER {
            return Err(Refused::Limit(count, 1000 + NUMBER));
        }
        Ok(ItemNUMBER { id: Uuid::new_v4(), name: name.to_owned(), count, made: Utc::now(), state: State::New, notes: Vec::new() })
    }
}
END
        sed "s/NUMBER/$number/g" >"service/src/routes/route$number.rs" <<'END'
//! Routes of kind NUMBER.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use model::ItemNUMBER;
use serde_json::{Value, json};

use crate::Shared;

pub fn routes() -> Router<Shared> {
    Router::new().route("/kindNUMBER/{name}", get(one)).route("/kindNUMBER", post(checked))
}

async fn one(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<ItemNUMBER>, StatusCode> {
    let url = format!("{}/kindNUMBER/{name}", shared.upstream);
    let answer = shared.client.get(url).send().await.map_err(|error| {
        tracing::warn!(%error, name, "no answer");
        StatusCode::BAD_GATEWAY
    })?;
    answer.json().await.map(Json).map_err(|_| StatusCode::BAD_GATEWAY)
}

async fn checked(Json(item): Json<ItemNUMBER>) -> (StatusCode, Json<Value>) {
    match ItemNUMBER::checked(&item.name, item.count) {
        Ok(item) => (StatusCode::OK, Json(json!({ "item": item }))),
        Err(refused) => (StatusCode::BAD_REQUEST, Json(json!({ "error": refused.to_string() }))),
    }
}
END
    done
}

# As the base of the build, the root that runs it has a libc that is at least as new.
right_rust() {
    local program=$1.program
    tar -xzOf - usr/local/bin/app >"$program" && [[ "\"$(run_here "$program" --revision)\"" = "$(grep -o '".*"' "$1/app/src/revision.rs")" ]]
}

# 400 C files in 20 packages, each with a header of its own that is long to read; make goes by the times of files and by what
# the compiler said that each includes.
context_make() {
    local part
    cat >Dockerfile <<'END'
ARG BASES
FROM ${BASES}/c AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/obj make -j "$(nproc)" OBJ=/obj && cp /obj/app /usr/local/bin/app

FROM ${BASES}/runtime-small
COPY --from=build /usr/local/bin/app /usr/local/bin/app
CMD ["app"]
END
    cat >Makefile <<'END'
OBJ = obj
CFLAGS = -O2
sources := $(sort $(wildcard src/app/*.c src/app/*/*.c))
objects := $(sources:%.c=$(OBJ)/%.o)

$(OBJ)/app: $(objects)
	@$(CC) -o $@ $^

$(OBJ)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo ' CC $<'
	@$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(objects:.o=.d)
END
    modules .c '#include "part.h"\nconst char revision_%d[] = "%d unedited";\nlong module_%d(long x, int which)\n{\n    switch (which) {\n' \
        '    case %d: return part_%d(x * %dL);\n' '    }\n    return x;\n}\n' 12
    for part in {0..19}; do part_header "$part" >"src/app/part$part/part.h"; done
    program_main >src/app/main.c
}

# A dozen functions that the compiler is to expand wherever they are called.
part_header() { # NUMBER
    printf '#pragma once\n#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <time.h>\n'
    awk -v part="$1" 'BEGIN {
        srand(part)
        for (i = 0; i < 12; i++) {
            printf "static inline long part_%d(long x)\n{\n    long sum = 0;\n    for (int i = 0; i < %d; i++) {\n", i, 3 + rand() * 60
            for (j = 0; j < 2; j++) printf "        if (x & %dL) sum += (x ^ %dL) * i; else x = x / %d + sum;\n", 2 ^ int(rand() * 30), rand() * 1e9, 2 + rand() * 99
            print "    }\n    return sum;\n}"
        }
    }'
}

right_make() { right_compiled "$@"; }

# A cache of small files like npm's, made by the step that keeps it: 40,000 of 467 MB in all, half of them compressible. One in a hundred is
# another with each revision of the source.
context_npm() {
    cp "$PEERS/fill" .
    mkdir src
    echo '"7 unedited"' >src/revision
    cat >Dockerfile <<'END'
ARG BASES
FROM ${BASES}/runtime-small AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/root/.npm ./fill /root/.npm src/revision >/usr/local/share/filled && cat /usr/local/share/filled

FROM ${BASES}/runtime-small
COPY --from=build /usr/local/share/filled /usr/local/share/filled
END
}

right_npm() { tar -xzOf - usr/local/share/filled | grep -qxF "40000 files of $(<"$1/src/revision")"; }
