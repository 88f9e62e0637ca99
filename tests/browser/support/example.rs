//! An example of the crate, as people run it: a process of its own.

use std::{
    env, io,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::OnceLock,
};

/// Runs the example until our input ends, however that happens, and then asks it
/// to stop. The output ends with the example.
const KEEPER: &str = r#""$1" </dev/null & exec >&-; read -r order; kill -TERM $!; wait $!"#;

#[derive(Debug)]
pub(crate) struct Example {
    url: String,
    process: Child,
    /// It may still write.
    _output: BufReader<ChildStdout>,
}

impl Example {
    /// On the database of this URL.
    pub(crate) fn start(name: &str, database: &str) -> Self {
        let mut process = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(built(name))
            .env("DATABASE_URL", database)
            .env("PORT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example runs");
        let output = process.stdout.take().expect("it is piped");
        let mut output = BufReader::new(output);
        let mut url = String::new();
        output.read_line(&mut url).expect("its address");
        Self {
            url: url.trim().to_owned(),
            process,
            _output: output,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        assert!(!self.url.is_empty(), "the example did not start");
        format!("{}{path}", self.url)
    }

    /// Without the scheme.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Stops it as Ctrl-C does, and returns how it ended.
    pub(crate) fn close(&mut self) -> ExitStatus {
        drop(self.process.stdin.take());
        self.process.wait().expect("it ends")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// With the whole workspace, as `cargo test --workspace` has just done it: for
/// this package alone its dependencies would be built anew.
fn built(name: &str) -> PathBuf {
    static ARE_BUILT: OnceLock<bool> = OnceLock::new();
    let are_built = ARE_BUILT.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--workspace"])
            .args(["--example", "devices", "--example", "dashboard"])
            .args(["--example", "members"])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .status();
        status.is_ok_and(|status| status.success())
    });
    assert!(are_built, "the examples do not build");
    folder_of_builds()
        .expect("this program is in the folder of builds")
        .join("examples")
        .join(name)
}

/// Where cargo puts what it builds: this program is in its folder `deps`.
fn folder_of_builds() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    let folder = program.ancestors().nth(2);
    folder
        .map(Path::to_owned)
        .ok_or_else(|| io::Error::other("there is none"))
}
