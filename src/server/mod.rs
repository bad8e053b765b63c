//! Listens and gives each connection a thread: the limits on both, and the orderly end.
//!
//! Knows nothing of the meaning of a request: that is the [`Handler`]'s.
//!
//! A connection waits at four places, each with its own limit:
//!
//! | waits for | limit | then |
//! |---|---|---|
//! | a request's first byte | `keep_alive`, or the stop; until a request was admitted, `keep_alive` in all | closed |
//! | with TLS: its handshake | `head_timeout` in all | closed |
//! | the rest of its head | `head_timeout` for the whole head | 408, closed |
//! | more of its body | `body_timeout` without a byte | 408, closed |
//! | the client to take more of the response | `write_timeout` without a byte | closed |
//!
//! If the table of connections is full, one that waits for a request, or for the delayed answer to a wrong key, makes room
//! for a new one (`table`). A client that
//! vanishes without a word, such as a laptop that loses power, is noticed by the system within two minutes (`client`).
//!
//! The handler limits its own waits. Only the stop limits them here: see [`StopHandle`].

mod client;
mod handler;
mod heartbeat;
mod listen;
mod refused;
mod stop;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod tls_socket;

pub use handler::{Client, Handler, ServerLimits};
pub use heartbeat::Heartbeat;
pub use listen::{Listener, run, spawn};
pub use stop::StopHandle;
pub use stream::{ClientStream, TlsStream};
pub use tls::{ServerTls, TlsFiles};
