//! Threads for work beside the requests: once, or again and again.

use std::io;
use std::time::Duration;

/// Runs `work` in a thread of its own, which ends with it.
///
/// # Errors
/// The thread cannot be started.
pub fn background(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_string()).spawn(work).map(|_| ())
}

/// Runs `work` again and again, after a pause each, in a thread of its own that ends with the program.
///
/// # Errors
/// The thread cannot be started.
pub fn every(name: &str, pause: Duration, mut work: impl FnMut() + Send + 'static) -> io::Result<()> {
    background(name, move || {
        loop {
            std::thread::sleep(pause);
            work();
        }
    })
}
