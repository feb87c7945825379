//! `bindings/c/install` with stand-ins for the libraries: names, places and modes.
#![cfg(unix)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

/// A checkout of some version with libraries of some content, which `install` finds in `built`.
struct Checkout {
    folder: TempDir,
}

impl Checkout {
    fn new(version: &str, libraries: &[&str]) -> Checkout {
        let checkout = Checkout { folder: TempDir::new().unwrap() };
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["bindings/c/include", "built"] {
            fs::create_dir_all(checkout.path(folder)).unwrap();
        }
        fs::copy(source.join("install"), checkout.path("bindings/c/install")).unwrap();
        fs::copy(source.join("include/midspan.h"), checkout.path("bindings/c/include/midspan.h")).unwrap();
        fs::write(checkout.path("Cargo.toml"), format!("[workspace.package]\nversion = \"{version}\"\n")).unwrap();
        libraries.iter().for_each(|name| checkout.build(name, "first"));
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(&self, name: &str, content: &str) {
        fs::write(self.path("built").join(name), content).unwrap();
        // As a compiler leaves it under a strict umask.
        fs::set_permissions(self.path("built").join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A `PATH` with a tool in front that does this.
    fn tool(&self, name: &str, does: &str) -> String {
        let tools = self.path("tools");
        fs::create_dir(&tools).unwrap();
        fs::write(tools.join(name), format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        format!("{}:{}", tools.display(), std::env::var("PATH").unwrap())
    }

    /// Runs the script in the checkout, under a strict umask.
    fn run(&self, prefix: &str, environment: &[(&str, &str)]) -> Output {
        let script = "umask 077; exec bindings/c/install \"$0\" built";
        let mut command = Command::new("sh");
        command.args(["-c", script, prefix]).current_dir(self.folder.path()).env_remove("LIBDIR").env_remove("DESTDIR");
        command.envs(environment.iter().copied()).output().unwrap()
    }

    fn install(&self, prefix: &str, environment: &[(&str, &str)]) {
        let output = self.run(prefix, environment);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn link(&self, name: &str) -> String {
        fs::read_link(self.path(name)).unwrap().to_str().unwrap().to_string()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }
}

const LINUX: [&str; 2] = ["libmidspan_c.a", "libmidspan_c.so"];

#[test]
fn a_running_program_keeps_the_library_that_is_replaced() {
    let checkout = Checkout::new("0.1.0", &LINUX);
    checkout.install("out", &[]);
    let mut mapped = fs::File::open(checkout.path("out/lib/libmidspan.so")).unwrap();
    LINUX.iter().for_each(|name| checkout.build(name, "second"));
    checkout.install("out", &[]);
    let mut old = String::new();
    mapped.read_to_string(&mut old).unwrap();
    assert_eq!(old, "first");
    assert_eq!(checkout.read("out/lib/libmidspan.so"), "second");
    assert_eq!(checkout.read("out/lib/libmidspan.a"), "second");
    let mut files: Vec<_> =
        fs::read_dir(checkout.path("out/lib")).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["libmidspan.a", "libmidspan.so", "libmidspan.so.0.1", "libmidspan.so.0.1.0", "pkgconfig"]);
}

#[test]
fn everybody_can_read_what_is_installed_whatever_the_umask() {
    let checkout = Checkout::new("0.1.0", &LINUX);
    checkout.install("out", &[]);
    for file in ["include/midspan.h", "lib/libmidspan.a", "lib/pkgconfig/midspan.pc"] {
        assert_eq!(checkout.mode(&format!("out/{file}")), 0o644, "{file}");
    }
    for file in ["lib/libmidspan.so", "include", "lib", "lib/pkgconfig"] {
        assert_eq!(checkout.mode(&format!("out/{file}")), 0o755, "{file}");
    }
}

#[test]
fn the_links_are_named_by_the_interface_version() {
    for (version, interface) in [("0.1.0", "0.1"), ("0.2.0-rc.1", "0.2"), ("1.4.2", "1"), ("2.0.0-beta.10", "2")] {
        let checkout = Checkout::new(version, &LINUX);
        checkout.install("out", &[]);
        let name = format!("libmidspan.so.{interface}");
        assert_eq!(checkout.link(&format!("out/lib/{name}")), format!("libmidspan.so.{version}"));
        assert_eq!(checkout.link("out/lib/libmidspan.so"), name);
        assert_eq!(checkout.read("out/lib/libmidspan.so"), "first");
        assert!(checkout.read("out/lib/pkgconfig/midspan.pc").contains(&format!("Version: {version}\n")));
    }
}

#[test]
fn a_relative_prefix_is_one_of_the_current_folder() {
    let checkout = Checkout::new("0.1.0", &LINUX);
    checkout.install("out/usr", &[("LIBDIR", "lib64")]);
    let text = checkout.read("out/usr/lib64/pkgconfig/midspan.pc");
    let here = checkout.folder.path().canonicalize().unwrap();
    assert!(text.starts_with(&format!("prefix={}/out/usr\nlibdir=${{prefix}}/lib64\n", here.display())), "{text}");
    assert!(checkout.path("out/usr/include/midspan.h").exists() && !checkout.path("out/usr/lib").exists());
}

#[test]
fn libraries_go_where_libdir_says_below_destdir() {
    let checkout = Checkout::new("0.1.0", &LINUX);
    let staged = checkout.path("staged");
    checkout.install("/usr", &[("LIBDIR", "/opt/lib"), ("DESTDIR", staged.to_str().unwrap())]);
    let text = checkout.read("staged/opt/lib/pkgconfig/midspan.pc");
    assert!(text.starts_with("prefix=/usr\nlibdir=/opt/lib\nincludedir=${prefix}/include\n"), "{text}");
    assert_eq!(checkout.read("staged/opt/lib/libmidspan.so.0.1"), "first");
    assert!(checkout.path("staged/usr/include/midspan.h").exists());
}

#[test]
fn a_static_library_alone_is_installed_with_what_it_needs() {
    let checkout = Checkout::new("0.1.0", &LINUX[..1]);
    let output = checkout.run("out", &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("no shared library"), "{said}");
    let text = checkout.read("out/lib/pkgconfig/midspan.pc");
    assert!(text.contains("Libs: -L${libdir} -lmidspan -lutil -lrt -lpthread -lm -ldl -lc\n"), "{text}");
    assert!(checkout.path("out/lib/libmidspan.a").exists() && !checkout.path("out/lib/libmidspan.so").exists());
}

/// Nothing is installed then, and the message says what to do.
fn refused(checkout: &Checkout, prefix: &str, environment: &[(&str, &str)], reason: &str) {
    let output = checkout.run(prefix, environment);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.starts_with("install: ") && said.contains(reason), "{said}");
    assert!(said.lines().count() == 1 && !checkout.path(prefix).exists(), "{said}");
}

const BUILD_FIRST: &str = "run cargo build --release -p midspan-c first\n";

#[test]
fn without_a_library_nothing_is_installed() {
    refused(&Checkout::new("0.1.0", &[]), "out", &[], &format!("built has no libmidspan_c.a: {BUILD_FIRST}"));
}

#[test]
fn a_library_older_than_the_header_is_refused() {
    for name in LINUX {
        let checkout = Checkout::new("0.1.0", &LINUX);
        let header = fs::metadata(checkout.path("bindings/c/include/midspan.h")).unwrap().modified().unwrap();
        let library = fs::File::options().append(true).open(checkout.path("built").join(name)).unwrap();
        library.set_modified(header - Duration::from_secs(2)).unwrap();
        refused(&checkout, "out", &[], &format!("{name} is older than "));
        refused(&checkout, "out", &[], BUILD_FIRST);
    }
}

#[test]
fn a_library_that_lacks_a_function_of_the_header_is_refused() {
    let (macos, linux) = ("libmidspan_c.dylib", "libmidspan_c.so");
    for (library, listed) in [(linux, "midspan_version T 10 20"), (macos, "_midspan_version T 10 20")] {
        let checkout = Checkout::new("0.1.0", &["libmidspan_c.a", library]);
        let header = "const char *midspan_version(void);\nmidspan_result midspan_two(uint32_t a,\n    uint32_t b);\n";
        fs::write(checkout.path("bindings/c/include/midspan.h"), header).unwrap();
        checkout.build("libmidspan_c.a", &format!("{listed}\n{}\n", listed.replace("version", "two")));
        checkout.build(library, &format!("{listed}\n{}\n", listed.replace("version T", "two U")));
        // In its place a tool that shows the file.
        let path = checkout.tool("nm", "cat \"$3\"");
        refused(&checkout, "out", &[("PATH", &path)], &format!("{library} has no midspan_two, which "));
    }
}

#[test]
fn places_that_pkg_config_would_take_apart_are_refused() {
    let checkout = Checkout::new("0.1.0", &LINUX);
    for name in ["a b", "a\tb", "a\"b", "a'b", "a\\b", "a$b", "a#b"] {
        refused(&checkout, name, &[], "PREFIX and LIBDIR may not hold spaces, quotes, \\, $ or #: ");
        refused(&checkout, "out", &[("LIBDIR", name)], "PREFIX and LIBDIR may not hold ");
    }
    // It is not in midspan.pc.
    checkout.install("/out", &[("DESTDIR", checkout.path("a b").to_str().unwrap())]);
    assert!(checkout.path("a b/out/include/midspan.h").exists());
}

#[test]
fn a_library_of_macos_states_its_own_path() {
    let checkout = Checkout::new("0.3.0", &["libmidspan_c.a", "libmidspan_c.dylib"]);
    let path = checkout.tool("install_name_tool", "echo \"$1 $2\" >> \"$3\"");
    let staged = checkout.path("staged");
    checkout.install("/opt/midspan", &[("PATH", &path), ("DESTDIR", staged.to_str().unwrap())]);
    assert_eq!(
        checkout.read("staged/opt/midspan/lib/libmidspan.dylib"),
        "first-id /opt/midspan/lib/libmidspan.0.3.dylib\n"
    );
    assert_eq!(checkout.link("staged/opt/midspan/lib/libmidspan.0.3.dylib"), "libmidspan.0.3.0.dylib");
    // What cargo built is not changed.
    assert_eq!(checkout.read("built/libmidspan_c.dylib"), "first");
}
