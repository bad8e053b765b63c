//! The binary: everything is in the library.

use std::process::ExitCode;

/// Under musl alone: glibc's allocator serves us well, musl's is several times slower.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sparkgap::cli::run(std::env::args_os())
}
