//! The binary: everything is in the library.

use std::process::ExitCode;

/// Under musl alone, whose own is slow with large pieces; glibc's serves us well.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    sparkgap::cli::run(std::env::args_os())
}
