//! The known paths, and the answers to all other ones.

use super::client::{Client, hello, post};
use super::server::Server;
use super::upstream::Upstream;

fn ask(mut client: Client, method: &str, path: &str) -> super::client::Answer {
    let mut request = post(hello().to_string().as_bytes());
    let line = format!("{method} {path} HTTP/1.1\r\n");
    request.splice(.."POST /v1/messages HTTP/1.1\r\n".len(), line.into_bytes());
    client.ask(&request)
}

// covers: 104
#[test]
fn messages_has_several_spellings() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for path in ["/v1/messages", "/v1/messages/", "/v1/messages?beta=true", "/v1/messages/?beta=true&a=b"] {
        assert_eq!(ask(server.connect(), "POST", path).message()[0]["text"], "Hello.", "{path}");
    }
}

#[test]
fn a_prefix_stands_before_every_path() {
    let upstream = Upstream::start();
    let bare = Server::start_with(&upstream, &["--prefix", "llm"]);
    ask(bare.connect(), "POST", "/llm/v1/messages").message();
    let server = Server::start_with(&upstream, &["--prefix", "/llm/qwen/"]);
    let mut client = server.connect();
    ask(server.connect(), "POST", "/llm/qwen/v1/messages?beta=true").message();
    for path in ["/llm/qwen/health", "/llm/qwen/", "/llm/qwen"] {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!(answer.status, 200, "{path}");
    }
    for path in ["/v1/messages", "/llm/v1/messages", "/llm/qwen2/v1/messages"] {
        assert_eq!(ask(server.connect(), "POST", path).status, 404, "{path}");
    }
}

// covers: 104
#[test]
fn somebody_is_there() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    for path in ["/", "/api/hello", "/health", "/api/hello/", "/?a=b"] {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        answer.has_request_id();
        answer.json();
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        // A body that came all the same would be read as the next head.
        let head = client.head();
        assert_eq!((head.status, head.header("content-length")), (200, answer.header("content-length")));
    }
    let health = client.ask(b"GET /health HTTP/1.1\r\n\r\n").json();
    assert_eq!(health["status"], "ok");
    assert_eq!(upstream.seen().len(), 0);
    let (_, health_docs) = include_str!("../../docs/behaviour.md").split_once("\n## Health\n").unwrap();
    let health_docs = health_docs.split("\n## ").next().unwrap();
    let fields = health.as_object().unwrap().keys().chain(health["cancelled"].as_object().unwrap().keys());
    for field in fields {
        assert!(health_docs.contains(&format!("`{field}`")), "docs/behaviour.md does not explain {field}");
    }
}

#[test]
fn other_paths_and_methods_are_refused_in_the_envelope() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for (method, path, status, kind, message) in [
        ("GET", "/v1/nothing", 404, "not_found_error", "Not found: GET /v1/nothing"),
        ("POST", "/v1/messages/x", 404, "not_found_error", "Not found: POST /v1/messages/x"),
        ("POST", "/v1", 404, "not_found_error", "Not found: POST /v1"),
        ("POST", "//v1/messages", 404, "not_found_error", "Not found: POST //v1/messages"),
        ("GET", "/v1/messages", 405, "invalid_request_error", "GET is not for /v1/messages; use POST"),
        ("PUT", "/v1/messages", 405, "invalid_request_error", "PUT is not for /v1/messages; use POST"),
        ("POST", "/health", 405, "invalid_request_error", "POST is not for /health; use GET or HEAD"),
        ("DELETE", "/", 405, "invalid_request_error", "DELETE is not for /; use GET or HEAD"),
        ("BREW", "/", 405, "invalid_request_error", "BREW is not for /; use GET or HEAD"),
    ] {
        let answer = ask(server.connect(), method, path);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.error(), (kind.to_owned(), message.to_owned()), "{method} {path}");
        // The header has the same methods, as RFC 9110 demands.
        let methods = message.split_once("use ").map(|(_, methods)| methods.replace(" or ", ", "));
        assert_eq!(answer.header("allow"), methods.as_deref(), "{method} {path}");
    }
    let mut client = server.connect();
    client.send(b"HEAD /v1/messages HTTP/1.1\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("allow")), (405, Some("POST")));
    client.send(b"HEAD /nothing HTTP/1.1\r\n\r\n");
    assert_eq!(client.head().status, 404);
    assert_eq!(client.ask(b"GET / HTTP/1.1\r\n\r\n").status, 200, "the connection still serves");
}
