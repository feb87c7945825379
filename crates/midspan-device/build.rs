//! With the feature `kernels`, compiles the device kernels' sources for the CPU; with `cuda`, for devices.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/kernels");
    #[cfg(feature = "kernels")]
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .cpp_link_stdlib(None)
        // Single operations of binary32, as the specification has them.
        .flag_if_supported("-ffp-contract=off")
        .file("src/kernels/host.cpp")
        .compile("midspan_kernels");
    #[cfg(feature = "cuda")]
    device();
}

/// Code for a virtual architecture, which the driver translates for the device at hand.
#[cfg(feature = "cuda")]
fn device() {
    println!("cargo::rerun-if-env-changed=NVCC");
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let out = std::path::Path::new(&std::env::var("OUT_DIR").expect("cargo sets it")).join("device.ptx");
    let status = std::process::Command::new(&nvcc)
        .args(["-ptx", "-arch=compute_80", "-fmad=false", "-o"])
        .arg(&out)
        .arg("src/kernels/device.cu")
        .status();
    match status {
        Ok(status) if status.success() => (),
        Ok(status) => panic!("{nvcc}: {status}"),
        Err(error) => panic!("{nvcc}: {error}; the feature cuda needs CUDA's compiler, or its path in NVCC"),
    }
}
