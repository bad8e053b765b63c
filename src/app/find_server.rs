//! The search for a model server on the usual local ports, for commands that name no server.
//!
//! Anybody may listen there: another user of this machine, or a program that has nothing to do with models. So requests
//! to a server that a search has found never carry a key.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::configure::{found_upstreams, upstream_key};
use crate::fleet::Upstream;
use crate::transport::{self, Failure};

/// The usual local ports: vLLM, vLLM at this project's user, llama.cpp, Ollama, LM Studio, SGLang.
pub(super) const USUAL_PORTS: [u16; 6] = [8000, 8888, 8080, 11434, 1234, 30000];

/// The time for a connection: long enough for a server on this machine.
const LOOK_TIMEOUT: Duration = Duration::from_millis(300);

/// The time for the models listing: long enough for a server on this machine.
const LISTING_TIMEOUT: Duration = Duration::from_secs(2);

/// The result of a search.
#[derive(Debug, Default)]
pub struct Search {
    /// The first server that lists models.
    pub url: Option<String>,
    /// The first server that asks for a key, if it was found before `url`.
    closed: Option<String>,
    /// True if there is a key for named upstreams.
    has_key: bool,
}

impl Search {
    /// Asks the usual ports, one after the other. `key_file` is the file of `--upstream-key-file`.
    ///
    /// # Errors
    /// The key file cannot be read.
    pub fn run(key_file: Option<&Path>) -> Result<Search, String> {
        Search::run_on(&USUAL_PORTS, key_file)
    }

    fn run_on(ports: &[u16], key_file: Option<&Path>) -> Result<Search, String> {
        let mut search = Search { has_key: upstream_key(key_file)?.is_some(), ..Search::default() };
        for &port in ports {
            let url = format!("http://127.0.0.1:{port}/v1");
            match ask(&url, port)? {
                Some(Reply::Models) => {
                    search.url = Some(url);
                    break;
                }
                Some(Reply::WantsKey) => search.closed = search.closed.or(Some(url)),
                None => {}
            }
        }
        Ok(search)
    }

    /// A note on a key that was not sent, to append to another sentence; empty if it is not needed.
    pub fn on_the_key(&self) -> String {
        match (&self.url, &self.closed) {
            (Some(url), _) if self.has_key => format!(
                "; it does not get the key for the upstream, as it was only found on a local port: to send the key, name the server with --upstream {url}"
            ),
            (None, Some(closed)) => format!(
                "; the server at {closed} asks for a key, and no key is sent to a server that was only found on a local port: name it with --upstream {closed}, and put its key into SPARKGAP_UPSTREAM_KEY or --upstream-key-file"
            ),
            _ => String::new(),
        }
    }
}

enum Reply {
    Models,
    WantsKey,
}

fn ask(url: &str, port: u16) -> Result<Option<Reply>, String> {
    // Nothing listens on most ports. A plain connection shows that at once, without the cost of making an upstream.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpStream::connect_timeout(&address, LOOK_TIMEOUT).is_err() {
        return Ok(None);
    }
    let limits =
        transport::CallLimits { discovery_timeout: LISTING_TIMEOUT, ..transport::CallLimits::default() };
    let Some(config) = found_upstreams(&[url.to_string()])?.pop() else { return Ok(None) };
    Ok(match Upstream::new(config, &limits)?.discover() {
        Ok(listed) if !listed.models.is_empty() => Some(Reply::Models),
        Err(Failure::Status(401 | 403)) => Some(Reply::WantsKey),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::path::PathBuf;
    use std::thread::{self, JoinHandle};

    use super::*;

    #[test]
    fn the_usual_ports_are_documented() {
        for page in [include_str!("../../docs/upstreams.md"), include_str!("../cli/arguments.rs")] {
            let line = page.lines().find(|line| line.contains("8888") && line.contains("11434")).unwrap();
            assert!(USUAL_PORTS.iter().all(|port| line.contains(&port.to_string())), "{line}");
        }
    }

    const MODELS: &str = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;

    /// A server that accepts an empty connection, then answers one request and returns the request's head.
    fn server(status: &'static str, body: &'static str) -> (u16, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let head = thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                    head.extend(byte);
                }
                if !head.is_empty() {
                    let length = body.len();
                    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
                    return String::from_utf8(head).unwrap().to_ascii_lowercase();
                }
            }
        });
        (port, head)
    }

    fn key_file(name: &str) -> PathBuf {
        let file = std::env::temp_dir().join(format!("sparkgap-found-{}-{name}", std::process::id()));
        std::fs::write(&file, "sk-upstream-4711\n").unwrap();
        file
    }

    #[test]
    fn a_server_that_was_only_found_gets_no_key() {
        let file = key_file("open");
        let (port, head) = server("200 OK", MODELS);
        let search = Search::run_on(&[port], Some(&file)).unwrap();
        let head = head.join().unwrap();
        assert!(!head.contains("authorization") && !head.contains("4711"), "{head}");
        let url = format!("http://127.0.0.1:{port}/v1");
        assert_eq!(search.url.as_deref(), Some(url.as_str()));
        let said = search.on_the_key();
        assert!(said.contains(&format!("name the server with --upstream {url}")), "{said}");
        assert!(!said.contains("4711"), "{said}");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_server_that_asks_for_a_key_is_passed_by_and_named() {
        let file = key_file("closed");
        let (closed, closed_head) = server("401 Unauthorized", "{}");
        let search = Search::run_on(&[closed], Some(&file)).unwrap();
        assert!(!closed_head.join().unwrap().contains("4711"));
        assert_eq!(search.url, None);
        let said = search.on_the_key();
        assert!(said.contains(&format!("name it with --upstream http://127.0.0.1:{closed}/v1")), "{said}");

        let (closed, closed_head) = server("403 Forbidden", "{}");
        let (open, open_head) = server("200 OK", MODELS);
        let search = Search::run_on(&[closed, open], None).unwrap();
        closed_head.join().unwrap();
        open_head.join().unwrap();
        assert_eq!(search.url, Some(format!("http://127.0.0.1:{open}/v1")));
        assert_eq!(search.on_the_key(), "", "no key was set");
        std::fs::remove_file(&file).unwrap();
    }
}
