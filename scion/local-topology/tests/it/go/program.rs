//! Builds the programs in Go next to these tests.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Timeout of `go`: it may have to download modules, and compiles 200 packages.
const BUILDING: Duration = Duration::from_secs(600);

/// A program in Go, which is built once.
pub(super) struct Program {
    /// Its folder in `tests`.
    name: &'static str,
    built: OnceCell<Option<PathBuf>>,
}

impl Program {
    pub(super) const fn new(name: &'static str) -> Self {
        let built = OnceCell::const_new();
        Self { name, built }
    }

    /// The executable. `None` without Go or its modules, which the first caller says.
    pub(super) async fn path(&self) -> Option<&Path> {
        self.built.get_or_init(|| self.build()).await.as_deref()
    }

    async fn build(&self) -> Option<PathBuf> {
        let missing = |why: &str| {
            skipped(&format!("{} is not tested: {why}", self.name));
            None
        };
        match self.go(&["version"]).await {
            Ok(output) if output.status.success() => {}
            Ok(output) => return missing(&format!("go version: {output:?}")),
            Err(error) => return missing(&format!("cannot run go: {error}")),
        }
        // Fails if a module cannot be had, or if this Go is too old for one.
        match self.go(&["list", "-deps", "."]).await {
            Ok(output) if output.status.success() => {}
            Ok(output) => return missing(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => return missing(&format!("its modules: {error}")),
        }
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.name);
        let arguments = ["build", "-trimpath", "-o", program.to_str().unwrap(), "."];
        let built = self.go(&arguments).await.unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "go build: {said}");
        Some(program)
    }

    async fn go(&self, arguments: &[&str]) -> io::Result<Output> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut command = Command::new("go");
        command
            .args(arguments)
            .current_dir(tests.join(self.name))
            // The Go that is there, and the versions in go.mod.
            .envs([("GOTOOLCHAIN", "local"), ("GOWORK", "off")])
            .envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=readonly")])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        timeout(BUILDING, command.output()).await?
    }
}

/// Says what is not tested, and why.
pub(super) fn skipped(what: &str) {
    // Not with a macro, because the output of a test that passes is not shown.
    let _ = io::stderr().write_all(format!("\nSKIPPED: {what}\n").as_bytes());
}
