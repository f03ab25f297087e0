use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// A folder of one test's own, and commands that run in it.
pub struct World {
    pub folder: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `burnmark` with arguments.
    pub fn burnmark(&self, arguments: &[&str]) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_burnmark")), arguments)
    }

    /// An example program of this package with arguments; `cargo test` builds them.
    pub fn example(&self, name: &str, arguments: &[&str]) -> Command {
        let folder = Path::new(env!("CARGO_BIN_EXE_burnmark")).parent().expect("a folder").join("examples");
        self.program(&folder.join(name), arguments)
    }

    fn program(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).args(arguments).timeout(std::time::Duration::from_mins(2));
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        // Peaks that are measured beside other tests are no one's reference.
        command.env("BURNMARK_PEAKS_CACHE", env!("CARGO_TARGET_TMPDIR"));
        command
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    pub fn json(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.path(name)).expect("the file is there");
        serde_json::from_str(&text).expect("it is JSON")
    }
}

/// A file of this repository.
pub fn repository(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Exit code of a command, and what it printed where.
pub fn ran(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("it ran");
    (output.status.code().expect("it was not killed"), stdout(&output), stderr(&output))
}
