//! Gives the shared library the name under which programs look it up: that of its interface, libmidspan.so.0.1. The
//! interface is 0.MINOR, and MAJOR from version 1.0 on, as cargo-c has it.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // `install` refuses a library that is older than the header.
    println!("cargo:rerun-if-changed=include/midspan.h");
    let part = |name: &str| var(format!("CARGO_PKG_VERSION_{name}")).unwrap_or_default();
    let interface = match (part("MAJOR").as_str(), part("MINOR")) {
        ("0", minor) => format!("0.{minor}"),
        (major, _) => major.to_string(),
    };
    match var("CARGO_CFG_TARGET_OS").as_deref() {
        // `install` puts the library's path in place of this name.
        Ok("macos" | "ios") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libmidspan.{interface}.dylib");
        }
        Ok("windows") => {}
        _ => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmidspan.so.{interface}"),
    }
}
