//! The live page: its files, who may look, and the events that feed it. `tests/ui` looks at it in a browser.

use serde_json::{Value, json};

use super::client::{Answer, Client, hello, post_with};
use super::server::Server;
use super::upstream::{Upstream, text_chunks};

const KEY: &str = "sk-0123456789abcdef";

fn get(server: &Server, target: &str, headers: &str) -> Answer {
    server.connect().ask(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes())
}

/// A POST to the page, with these headers in addition.
fn post(server: &Server, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    server.connect().ask(format!("{head}{body}").as_bytes())
}

/// Opens the events; the connection, and the first one.
fn events(server: &Server, query: &str, headers: &str) -> (Client, Value) {
    let mut client = server.connect();
    client.send(format!("GET /ui/events{query} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes());
    let head = client.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head:?}");
    let first = event(&mut client).unwrap();
    (client, first)
}

/// The next event; `None`: the stream has ended.
fn event(client: &mut Client) -> Option<Value> {
    let piece = String::from_utf8(client.piece()?).unwrap();
    let data = piece.strip_prefix("data: ").and_then(|piece| piece.strip_suffix("\n\n")).unwrap();
    assert!(!data.contains('\n'));
    Some(serde_json::from_str(data).unwrap())
}

/// A server whose clients need [`KEY`]; the path of its file of keys.
fn with_key(upstream: &Upstream, name: &str) -> (Server, String) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.keys"));
    std::fs::write(&path, format!("{KEY} anna\n")).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (Server::start_with(upstream, &["--api-key-file", &path]), path)
}

#[test]
fn the_files_of_the_page_need_no_key_and_let_nothing_else_in() {
    let upstream = Upstream::start();
    let (server, _) = with_key(&upstream, "ui-files");
    for (path, kind) in [
        ("/ui", "text/html; charset=utf-8"),
        ("/ui/ui.css", "text/css; charset=utf-8"),
        ("/ui/ui.js", "text/javascript; charset=utf-8"),
        ("/ui/uPlot.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = get(&server, path, "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        assert!(answer.body.starts_with(b"\x1f\x8b"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(post(&server, path, "", "{}").status, 405, "{path}");
    }
    let moved = get(&server, "/ui/", "");
    assert_eq!((moved.status, moved.header("location")), (308, Some("../ui")));
    for path in ["/ui/x", "/ui/../etc/passwd", "/uix", "/ui/ui.js.gz"] {
        assert_eq!(get(&server, path, "").status, 404, "{path}");
    }
    assert_eq!(get(&server, "/ui/login", "").status, 405);
    // The files of the page do not count as requests of clients.
    assert_eq!(server.health()["requests"], 9, "the wrong paths and methods");
}

#[test]
fn pages_of_others_see_nothing() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for headers in [
        "host: localhost\r\norigin: https://evil.example\r\n",
        "host: localhost\r\nsec-fetch-site: cross-site\r\n",
        "host: rebound.evil.example\r\n",
    ] {
        for path in ["/ui", "/ui/ui.js", "/ui/events"] {
            let answer = server.connect().ask(format!("GET {path} HTTP/1.1\r\n{headers}\r\n").as_bytes());
            assert_eq!(answer.status, 403, "{path} {headers}");
        }
        let head = format!(
            "POST /ui/login HTTP/1.1\r\n{headers}content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        assert_eq!(server.connect().ask(head.as_bytes()).status, 403, "{headers}");
    }
}

#[test]
fn a_link_on_another_site_opens_the_page() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let link = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n";
    let frame = link.replace("document", "iframe");
    assert_eq!(get(&server, "/ui", link).status, 200);
    assert_eq!(get(&server, "/ui", &frame).status, 403);
    for path in ["/ui/ui.js", "/ui/events", "/ui/recording/req_1?part=client_body", "/health", "/activity"] {
        assert_eq!(get(&server, path, link).status, 403, "{path}");
    }
    assert_eq!(post(&server, "/ui", link, "{}").status, 403);
}

#[test]
fn a_browser_shows_its_key_once_and_the_session_ends_with_it() {
    let upstream = Upstream::start();
    let (server, path) = with_key(&upstream, "ui-keys");
    assert_eq!(get(&server, "/ui/events", "").status, 401);
    assert_eq!(get(&server, "/ui/events", "cookie: sparkgap_ui=guess\r\n").status, 401);
    assert_eq!(get(&server, "/ui/events", &format!("cookie: sparkgap_ui={KEY}\r\n")).status, 401);
    for (body, status) in [
        (json!({"key": "sk-wrong"}).to_string(), 401),
        (json!({"key": ""}).to_string(), 401),
        (json!({"key": 7}).to_string(), 400),
        ("[]".to_owned(), 400),
        ("{".to_owned(), 400),
        (String::new(), 400),
        (json!({"key": "x".repeat(2000)}).to_string(), 400),
    ] {
        let answer = post(&server, "/ui/login", "", &body);
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.header("set-cookie"), None);
    }
    let form = "POST /ui/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(server.connect().ask(form.as_bytes()).status, 415);

    let answer = post(&server, "/ui/login", "", &json!({"key": KEY}).to_string());
    assert_eq!(answer.status, 200);
    let cookie = answer.header("set-cookie").unwrap();
    let (session, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/ui; HttpOnly; SameSite=Strict");
    assert!(session.starts_with("sparkgap_ui=") && session.len() > 30 && !session.contains(KEY), "{session}");
    let header = format!("cookie: {session}\r\n");
    let (mut looking, first) = events(&server, "", &header);
    assert!(first["connect"].as_array().unwrap().len() == 4, "{first}");
    // The session is for the page alone.
    assert_eq!(get(&server, "/v1/models", &header).status, 401);

    std::fs::write(&path, "sk-another-0123456789 ben\n").unwrap();
    server.hang_up();
    server.wait_for("keys of clients loaded: 1");
    while event(&mut looking).is_some() {}
    assert_eq!(get(&server, "/ui/events", &header).status, 401);
}

#[test]
fn a_session_ends_at_the_log_out() {
    let upstream = Upstream::start();
    let (server, _) = with_key(&upstream, "ui-logout");
    let answer = post(&server, "/ui/login", "", &json!({"key": KEY}).to_string());
    let session = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let header = format!("cookie: {session}\r\n");
    drop(events(&server, "", &header));
    let answer = post(&server, "/ui/logout", &header, "{}");
    assert_eq!(answer.status, 200);
    assert!(answer.header("set-cookie").unwrap().ends_with("Max-Age=0"));
    assert_eq!(get(&server, "/ui/events", &header).status, 401);
    drop(events(&server, "", &format!("x-api-key: {KEY}\r\n")));
}

#[test]
fn events_have_the_boxes_and_the_requests_that_the_browser_does_not_know() {
    let upstream = Upstream::start();
    upstream.next_chunks(text_chunks("hello"));
    let server = Server::start(&upstream);
    let session = "x-claude-code-session-id: <b>s</b>\r\n";
    server.connect().ask(&post_with(session, hello().to_string().as_bytes()));
    let (mut looking, mut first) = events(&server, "", "");
    // The answer may be here a moment before its request has ended.
    while first["finished"] == json!([]) || first["in_flight"] != json!([]) {
        drop(looking);
        (looking, first) = events(&server, "", "");
    }
    assert_eq!(first["boxes"][0]["name"], "default");
    assert_eq!(first["boxes"][0]["state"], "well");
    assert_eq!(first["totals"]["in_flight"], 0, "a browser that looks is not a request");
    let row = &first["finished"][0];
    assert_eq!((row["number"].as_u64(), row["session"].as_str()), (Some(1), Some("<b>s</b>")));
    assert_eq!(first["finished"].as_array().unwrap().len(), 1);
    assert_eq!(first["totals"]["requests"], 1);
    let run = first["run"].as_str().unwrap();
    let (_, known) = events(&server, &format!("?run={run}&after=1"), "");
    assert_eq!(known["finished"], json!([]));
    let (_, other) = events(&server, "?run=another&after=1", "");
    assert_eq!(other["finished"].as_array().unwrap().len(), 1);
}

#[test]
fn eight_browsers_look_and_a_stop_ends_them() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut looking: Vec<Client> = (0..8).map(|_| events(&server, "", "").0).collect();
    let ninth = get(&server, "/ui/events", "");
    assert_eq!(ninth.status, 503);
    assert!(ninth.error().1.contains("8 browsers look at this page already"), "{}", ninth.text());
    // One that leaves makes room within the second.
    drop(looking.pop());
    while get(&server, "/ui/ui.css", "").status == 200 {
        let mut client = server.connect();
        client.send(b"GET /ui/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
        if client.head().status == 200 {
            looking.push(client);
            break;
        }
    }
    assert!(server.terminate());
    for mut client in looking {
        while event(&mut client).is_some() {}
    }
}
