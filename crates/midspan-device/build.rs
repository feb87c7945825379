//! With the feature `kernels`, compiles the device kernels' sources for the CPU; with `cuda`, for devices.

#[cfg(any(feature = "kernels", feature = "cuda"))]
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/kernels");
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it"));
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    write_constants(&out);
    #[cfg(feature = "kernels")]
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .cpp_link_stdlib(None)
        // Single operations of binary32, as the specification has them.
        .flag_if_supported("-ffp-contract=off")
        .include(&out)
        .file("src/kernels/host.cpp")
        .compile("midspan_kernels");
    #[cfg(feature = "cuda")]
    device(&out);
}

/// Writes the constants of spec chapter 5 as a header, so that they are stated once.
#[cfg(any(feature = "kernels", feature = "cuda"))]
fn write_constants(out: &Path) {
    use midspan::model::network::*;
    let constants = [
        ("ACTIVATION_MAX", ACTIVATION_MAX),
        ("ATTENTION_SHIFT", ATTENTION_SHIFT.into()),
        ("EXP_LEN", EXP_LEN as i32),
        ("KEY_MAX", KEY_MAX),
        ("NORM_SHIFT", NORM_SHIFT.into()),
        ("PRE_ACTIVATION_MAX", PRE_ACTIVATION_MAX),
        ("PRE_ACTIVATION_MIN", PRE_ACTIVATION_MIN),
        ("SQUARES_SHIFT", SQUARES_SHIFT.into()),
        ("WIDE_MAX", WIDE_MAX),
    ];
    let lines = constants.map(|(name, value)| format!("constexpr int {name} = {value};\n"));
    std::fs::write(out.join("constants.h"), format!("#pragma once\n{}", lines.concat())).expect("a header in OUT_DIR");
}

/// Code for a virtual architecture, which the driver translates for the device at hand.
#[cfg(feature = "cuda")]
fn device(out: &Path) {
    println!("cargo::rerun-if-env-changed=NVCC");
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let status = std::process::Command::new(&nvcc)
        .args(["-ptx", "-arch=compute_80", "-fmad=false", "-o"])
        .arg(out.join("device.ptx"))
        .arg("-I")
        .arg(out)
        .arg("src/kernels/device.cu")
        .status();
    match status {
        Ok(status) if status.success() => (),
        Ok(status) => panic!("{nvcc}: {status}"),
        Err(error) => panic!("{nvcc}: {error}; the feature cuda needs CUDA's compiler, or its path in NVCC"),
    }
}
