#!/usr/bin/env bash
# Builds the npm package into bindings/wasm/pkg. Needs Rust 1.94 with the target wasm32-unknown-unknown, Node, and
# wasm-bindgen on the path, of the version in Cargo.lock.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target="${CARGO_TARGET_DIR:-$root/target}"

wanted=$(awk '/^name = "wasm-bindgen"$/ { getline; gsub(/version = |"/, ""); print }' "$root/Cargo.lock")
found=$(wasm-bindgen --version 2>/dev/null | cut -d ' ' -f 2 || true)
[ "$found" = "$wanted" ] || {
  echo "wasm-bindgen is ${found:-missing}; cargo install wasm-bindgen-cli --version $wanted" >&2
  exit 1
}

# These flags are for this target alone. The paths of this machine are not in the module.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
home="${CARGO_HOME:-$HOME/.cargo}"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-C target-feature=+simd128 \
--remap-path-prefix=$root=midspan --remap-path-prefix=$home=cargo"
cargo build --quiet --locked --release -p midspan-wasm --lib --target wasm32-unknown-unknown --target-dir "$target" \
  --config 'profile.release.lto=true' --config 'profile.release.codegen-units=1' --config 'profile.release.panic="abort"'

rm -rf pkg
wasm-bindgen --target web --out-dir pkg --out-name bindings --no-typescript --experimental-reset-state-function \
  --remove-name-section --remove-producers-section "$target/wasm32-unknown-unknown/release/midspan_wasm.wasm"
cp js/* package.json README.md LICENSE-APACHE LICENSE-MIT pkg
