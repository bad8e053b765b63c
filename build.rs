//! Tells the program which commit it was built from, without git: a release says so in `sparkgap --version`.
//!
//! The commit comes from the environment (`SPARKGAP_COMMIT`), from the file that `git archive` fills in, or from the
//! files in `.git`. A debug build names none, since otherwise each commit would compile all tests anew.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The digits of a commit that are shown.
const DIGITS: usize = 12;

fn main() {
    println!("cargo:rerun-if-env-changed=SPARKGAP_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let told = env::var("SPARKGAP_COMMIT").ok();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = told.or_else(|| is_release.then(|| archived().or_else(checked_out)).flatten());
    let commit = commit.map(|commit| commit.trim().chars().take(DIGITS).collect::<String>());
    let shown =
        match commit.filter(|commit| !commit.is_empty() && commit.chars().all(|c| c.is_ascii_hexdigit())) {
            Some(commit) => format!("{version} ({commit})"),
            None => version,
        };
    println!("cargo:rustc-env=SPARKGAP_VERSION={shown}");
}

/// The commit that `git archive` wrote into the file; anywhere else the file holds the placeholder.
fn archived() -> Option<String> {
    read(Path::new(".ci/commit")).filter(|text| !text.starts_with('$'))
}

/// The commit of the checkout, from `.git/HEAD` and the file of its branch.
fn checked_out() -> Option<String> {
    let git = git_folder()?;
    let head = read(&git.join("HEAD"))?;
    let Some(branch) = head.trim().strip_prefix("ref: ") else { return Some(head) };
    // The branches of a worktree stand in the folder of its repository.
    let common = read(&git.join("commondir")).map_or_else(|| git.clone(), |path| git.join(path.trim()));
    if let Some(commit) = read(&common.join(branch)) {
        return Some(commit);
    }
    let packed = read(&common.join("packed-refs"))?;
    let line = packed.lines().find(|line| line.split(' ').nth(1) == Some(branch))?;
    line.split(' ').next().map(str::to_owned)
}

/// `.git`, or the folder that it names in a worktree.
fn git_folder() -> Option<PathBuf> {
    let git = Path::new(".git");
    if git.is_dir() {
        return Some(git.to_owned());
    }
    fs::read_to_string(git).ok()?.trim().strip_prefix("gitdir: ").map(PathBuf::from)
}

/// The text of a file, which is looked at again when it changes.
fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo:rerun-if-changed={}", path.display());
    Some(text)
}
