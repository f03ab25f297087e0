//! Records what built the program: commit (`-dirty` if files differ from it), compiler, profile, Burn's version. What
//! cannot be had is left out.

use std::path::Path;
use std::process::Command;

fn main() {
    let set = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            println!("cargo::rustc-env={name}={value}");
        }
    };
    println!("cargo::rerun-if-changed=build.rs");
    for file in [".git/HEAD", ".git/logs/HEAD", "Cargo.lock", "Cargo.toml", "src", "backends"] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    // The loader finds LibTorch where the build found it.
    if let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    set("BURNMARK_GIT_COMMIT", output("git", &["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]));
    set("BURNMARK_RUSTC", output(&std::env::var("RUSTC").unwrap_or_default(), &["--version"]));
    set("BURNMARK_PROFILE", std::env::var("PROFILE").ok());
    set("BURNMARK_TARGET", std::env::var("TARGET").ok());
    set("BURNMARK_BURN_VERSION", burn_version());
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version that Cargo.lock fixes.
fn burn_version() -> Option<String> {
    let lock = std::fs::read_to_string("Cargo.lock").ok()?;
    let (_, package) = lock.split_once("name = \"burn\"\nversion = \"")?;
    package.split('"').next().map(str::to_owned)
}
