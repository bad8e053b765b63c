//! The binary: everything is in the library.

use std::process::ExitCode;

/// The system's allocators keep what a load has taken, this one gives it back (see `Cargo.toml`). `.cargo/config.toml` says how
/// it is set up.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sparkgap::cli::run(std::env::args_os())
}
