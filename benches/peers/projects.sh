# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts use what is set here
# What is built; sourced by lib.sh. For each project: the base images that it is FROM, which it finds as BASES/NAME;
# the file that `source` edits; context_NAME, which makes what is to be built in the empty directory it is called in; and
# right_NAME, which says whether an image's last layer is what a directory makes.

declare -A BASES_OF=(
    [interpreted]=python
    [compiled]='toolchain runtime'
    [rust]='rust runtime-small'
    [make]='c runtime-small'
    [npm]=runtime-small
)
declare -A EDITED=(
    [interpreted]=src/app/part7/module7.py
    [compiled]=src/app/part7/module7.c
    [rust]=app/src/revision.rs
    [make]=src/app/part7/module7.c
    [npm]=src/revision
)
# What it is made of beside these scripts, in this directory.
declare -A INPUTS=([rust]=rust [npm]=fill)

# Debian's packages in each base, which Debian if not bookworm, and what of its tree lies in the second layer.
# shellcheck disable=SC2054 # debootstrap wants commas
declare -A PACKAGES_IN=(
    [python]=python3,python3-pip,ca-certificates
    [toolchain]=build-essential,cmake,git,clang,golang-go,ca-certificates
    [runtime]=ffmpeg,ca-certificates
    [rust]=rustc,cargo,gcc,libc6-dev,ca-certificates
    [c]=gcc,make,libc6-dev
    [runtime-small]=ca-certificates
)
# The first one with a compiler of Rust that today's crates take; what runs the program is the same.
declare -A SUITE_OF=([rust]=trixie [c]=trixie [runtime-small]=trixie)
declare -A SECOND_LAYER=(
    [python]='./usr/lib/python3* ./usr/share/python*'
    [toolchain]='./usr/lib/gcc ./usr/lib/go* ./usr/lib/llvm* ./usr/share/go* ./usr/include'
    [runtime]='./usr/lib/*-linux-gnu'
    [rust]='./usr/lib/rustlib ./usr/lib/*-linux-gnu ./usr/lib/gcc'
    [c]='./usr/lib/gcc ./usr/include'
    [runtime-small]='./etc/ssl ./usr/share/ca-certificates'
)

. "$PEERS/mounted.sh"

# made_as PROJECT: whose bases and context it builds; NAME-plain and NAME-auto have none of their own.
made_as() { local name=${1%-plain}; echo "${name%-auto}"; }

# Steps are in the order of most Dockerfiles: what changes seldom first.
context_interpreted() {
    get_wheels "$PEERS/requirements.txt" deps
    cp "$PEERS/requirements.txt" .
    cat >Dockerfile <<'END'
ARG BASES
FROM ${BASES}/python
COPY deps /deps
COPY requirements.txt /deps/
RUN pip install --no-index --find-links /deps -r /deps/requirements.txt
WORKDIR /app
COPY src /app
CMD ["python3", "-m", "app"]
END
    modules .py 'REVISION = "%d unedited"\n' 'def handler_%d(request):\n    return request.get(%d, %d)\n' ''
    : >src/app/__init__.py
    echo 'print("up")' >src/app/__main__.py
}

right_interpreted() { tar -xzOf - app/app/part7/module7.py | cmp -s - "$1/src/app/part7/module7.py"; }

# Every step but the last makes a layer: with the containerd store, 28's classic builder fails on a cached one that makes none.
context_compiled() {
    cat >Dockerfile <<'END'
ARG BASES
FROM ${BASES}/toolchain AS build
WORKDIR /build
COPY Makefile .
COPY src src
RUN make -j "$(nproc)"

FROM ${BASES}/runtime
WORKDIR /app
COPY static static
COPY --from=build /build/app /usr/local/bin/app
CMD ["app"]
END
    # shellcheck disable=SC2016 # make's variables
    printf '%s\n' 'CFLAGS = -O2' 'app: $(patsubst %.c,%.o,$(sort $(wildcard src/app/*.c src/app/*/*.c)))' '	$(CC) -o $@ $^' >Makefile
    modules .c 'const char revision_%d[] = "%d unedited";\nlong module_%d(long x, int which)\n{\n    switch (which) {\n' \
        '    case %d: return (x * %dL) ^ %dL;\n' '    }\n    return x;\n}\n'
    program_main >src/app/main.c
    mkdir static
    awk 'BEGIN {
        srand(2)
        for (i = 0; i < 60; i++) {
            file = "static/sheet" i ".css"
            for (j = 0; j < 2000; j++) printf ".c%d { margin: %dpx; color: #%06x }\n", j, rand() * 99, rand() * 2 ^ 24 >file
            close(file)
        }
    }'
}

# Its main function: every module in turn, and then the revision that it has.
program_main() {
    local number
    echo '#include <stdio.h>'
    for number in {0..399}; do echo "extern const char revision_${number}[]; long module_$number(long, int);"; done
    echo 'int main(int count, char **words) { long x = count;'
    for number in {0..399}; do echo "x = module_$number(x, count); puts(revision_$number);"; done
    echo 'return 0; }'
}

right_compiled() {
    local program=$1.program
    tar -xzOf - usr/local/bin/app >"$program" &&
        run_here "$program" | sort | cmp -s - <(grep -rhoE '"[0-9]+ [0-9a-z]+"' "$1/src" | tr -d '"' | sort)
}

# run_here PROGRAM ARGUMENT…: with the libraries of the newest Debian here, which are as new as those that it was made with.
run_here() { "$(ld_so "$ROOTS/sid")" --library-path "$(libraries "$ROOTS/sid")" "$@"; }

# modules SUFFIX HEAD LINE TAIL [FUNCTIONS]: 400 modules of 1 to 9 kB in 20 packages; the same bytes every time. The three are
# formats: the head takes the module's number, a line its own number and two large ones, or one of that many functions for
# the first of these.
modules() {
    mkdir -p src/app/part{0..19}
    awk -v suffix="$1" -v head="$2" -v line="$3" -v tail="$4" -v functions="${5:-1e9}" 'BEGIN {
        srand(1)
        for (i = 0; i < 400; i++) {
            file = "src/app/part" i % 20 "/module" int(i / 20) suffix
            printf head, i, i, i >file
            for (j = 0; j < 20 + i % 150; j++) printf line, j, int(rand() * functions), int(rand() * 1e9) >file
            printf "%s", tail >file
            close(file)
        }
    }'
}

# edit_source CONTEXT PROJECT: one line in one file, never the same twice.
edit_source() {
    local file=$1/${EDITED[$2]}
    sed "s/\"\([0-9]*\) [0-9a-z]*\"/\"\1 $(random 8)\"/" "$file" >"$file.new"
    mv "$file.new" "$file"
}
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
