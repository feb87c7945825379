//! With the feature `kernels`, compiles the device kernels' sources for the CPU.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "kernels")]
    {
        println!("cargo::rerun-if-changed=src/gpu/kernels");
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .opt_level(2)
            .cpp_link_stdlib(None)
            // Single operations of binary32, as the specification has them.
            .flag_if_supported("-ffp-contract=off")
            .file("src/gpu/kernels/host.cpp")
            .compile("midspan_kernels");
    }
}
