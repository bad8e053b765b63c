//! The rules for letting clients in: web pages, host names, keys and their owners, and the addresses of clients.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use serde_json::{Value, json};

use super::client::{Answer, Client, hello, hello_stream, post, post_with};
use super::server::{Server, hooks_file, output};
use super::upstream::{Upstream, text_chunks};

const EVIL: &str = "origin: https://evil.example\r\n";

/// A file of keys; its path.
fn keys_file(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.keys"));
    std::fs::write(&path, "sk-guest guest\nsk-anna anna b.\nsk-nameless\n").unwrap();
    path.to_str().unwrap().to_owned()
}

/// One request on a connection of its own.
fn ask(server: &Server, method: &str, target: &str, headers: &str) -> Answer {
    server.connect().ask(format!("{method} {target} HTTP/1.1\r\n{headers}\r\n").as_bytes())
}

/// A whole POST with these headers only.
fn post_bare(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn is_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 403, "{what}: {}", answer.text());
    assert_eq!(answer.header("x-should-retry"), Some("false"), "{what}");
    assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control")), "{what}: {answer:?}");
    if !answer.body.is_empty() {
        assert_eq!(answer.error().0, "permission_error", "{what}");
    }
}

/// The headers that browsers send for a page of another origin, or for one whose name was bound to this machine.
const PAGES: [&str; 10] = [
    "host: localhost\r\norigin: https://evil.example\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\n",
    "host: localhost\r\norigin: null\r\n",
    "host: localhost\r\norigin: http://localhost:8080\r\nsec-fetch-site: same-site\r\n",
    "host: 127.0.0.1\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n",
    "host: 127.0.0.1\r\nsec-fetch-site: same-site\r\n",
    "host: rebound.evil.example:4000\r\n",
    "host: rebound.evil.example:4000\r\norigin: http://rebound.evil.example:4000\r\nsec-fetch-site: same-origin\r\n",
    "host: 127.0.0.1.nip.io\r\n",
    "host: localhost.evil.example\r\n",
    "host: 192.0.2.7:4000\r\n",
];

#[test]
fn a_web_page_gets_nothing_wherever_it_asks() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for page in PAGES {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/health"),
            ("HEAD", "/health"),
            ("GET", "/env"),
            ("GET", "/v1/models"),
            ("GET", "/v1/models/qwen3"),
            ("GET", "/nothing"),
            ("DELETE", "/v1/messages"),
            ("OPTIONS", "/v1/messages"),
        ] {
            let mut client = server.connect();
            client.send(format!("{method} {path} HTTP/1.1\r\n{page}\r\n").as_bytes());
            let answer = if method == "HEAD" { client.head() } else { client.receive() };
            is_refused(&answer, &format!("{method} {path} {page}"));
        }
        for path in ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages?beta=true"] {
            for kind in ["application/json", "text/plain;charset=UTF-8"] {
                let headers = format!("{page}content-type: {kind}\r\n");
                let answer = server.connect().ask(&post_bare(path, &headers, &hello().to_string()));
                is_refused(&answer, &format!("POST {path} {headers}"));
            }
        }
        let preflight = format!(
            "{page}access-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n"
        );
        is_refused(&ask(&server, "OPTIONS", "/v1/messages", &preflight), &preflight);
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_web_page_is_refused_before_its_body_is_read() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n{EVIL}expect: 100-continue\r\ncontent-length: 33000000\r\n\r\n"
    );
    is_refused(&client.ask(head.as_bytes()), "a body that does not come");
}

#[test]
fn an_absolute_target_counts_as_the_host() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for (target, headers, status) in [
        ("http://evil.example/health", "", 403),
        ("http://evil.example/health", "host: localhost\r\n", 403),
        ("http://localhost:4000/health", "host: evil.example\r\n", 403),
        ("http://localhost:4000/health", "host: localhost:4000\r\n", 200),
        ("http://[::1]:4000/health", "", 200),
        ("http://localhost@evil.example/health", "", 403),
        ("/health", "host: localhost\r\nhost: localhost\r\n", 400),
        ("/health", "host: localhost\r\nHost: evil.example\r\n", 400),
        // No browser leaves it out.
        ("/health", "", 200),
        ("/health", "host:\r\n", 200),
    ] {
        assert_eq!(ask(&server, "GET", target, headers).status, status, "{target} {headers}");
    }
}

#[test]
fn own_pages_and_plain_programs_are_served() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let port = server.address.port();
    for headers in [
        format!(
            "host: 127.0.0.1:{port}\r\norigin: http://127.0.0.1:{port}\r\nsec-fetch-site: same-origin\r\n"
        ),
        "host: LOCALHOST.\r\nsec-fetch-site: none\r\nsec-fetch-mode: navigate\r\n".to_owned(),
        "host: spark.localhost:4000\r\nsec-fetch-mode: cors\r\n".to_owned(),
        "host: [::1]:9999\r\n".to_owned(),
        "host: [::ffff:127.0.0.1]\r\n".to_owned(),
        String::new(),
    ] {
        server.connect().ask(&post_bare("/v1/messages", &headers, &hello().to_string())).message();
    }
}

#[test]
fn a_listed_host_is_served_without_keys() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--allow-host", "box.lan", "--allow-host", "192.0.2.7"]);
    for (host, status) in [("Box.lan:4000", 200), ("192.0.2.7:80", 200), ("localhost", 200), ("lan", 403)] {
        let answer = ask(&server, "GET", "/health", &format!("host: {host}\r\n"));
        assert_eq!(answer.status, status, "{host}");
    }
    let answer = ask(&server, "GET", "/health", "host: other.lan:4000\r\n");
    assert!(answer.error().1.contains("--allow-host other.lan or --api-key-file"), "{}", answer.text());
    for (flag, value) in [
        ("--allow-host", "box:4000"),
        ("--allow-origin", "*"),
        ("--allow-origin", "chat.example"),
        ("--trusted-proxy", "10.0.0.0/33"),
        ("--trusted-proxy", "box"),
    ] {
        let (code, _, stderr) = output(&["serve", "--upstream", "demo", flag, value]);
        assert!(code == Some(64) && stderr.contains(value), "{flag} {value}: {stderr}");
    }
}

#[test]
fn the_address_that_was_reached_is_served_without_keys() {
    let upstream = Upstream::start();
    // Every address of 127.0.0.0/8 is this machine's; what a LAN calls it is judged by the same rule.
    let socket = TcpListener::bind("[::]:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let server =
        Server::run_activated(&["serve", "--upstream", &upstream.url(), "--allow-anonymous"], socket.into());
    let mut client = Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    for (host, status) in
        [("127.0.0.1", 200), ("0.0.0.0", 403), ("[::]", 403), ("box", 403), ("192.0.2.7", 403)]
    {
        let request = format!("GET /health HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n");
        assert_eq!(client.ask(request.as_bytes()).status, status, "{host}");
    }
    assert!(server.terminate());
}

#[test]
fn with_keys_every_host_is_served_and_no_page() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--api-key-file", &keys_file("hosts")]);
    let key = "x-api-key: sk-anna\r\n";
    let body = hello().to_string();
    for host in ["llm.example", "box:4000", "192.0.2.7"] {
        let own = format!("host: {host}\r\norigin: https://{host}\r\nsec-fetch-site: same-origin\r\n");
        for headers in [format!("host: {host}\r\n"), own] {
            server.connect().ask(&post_bare("/v1/messages", &format!("{headers}{key}"), &body)).message();
            let answer = server.connect().ask(&post_bare("/v1/messages", &headers, &body));
            assert_eq!(answer.status, 401, "{headers}");
        }
    }
    for page in &PAGES[..5] {
        let answer = server.connect().ask(&post_bare("/v1/messages", &format!("{page}{key}"), &body));
        is_refused(&answer, page);
        is_refused(&ask(&server, "GET", "/health", page), page);
    }
    assert_eq!(upstream.seen().len(), 6);
}

#[test]
fn pages_of_a_listed_origin_are_served_and_may_read_the_answers() {
    let upstream = Upstream::start();
    let keys = keys_file("origins");
    let origins = ["--allow-origin", "https://Chat.example/", "--allow-origin", "app://obsidian.md"];
    let server = Server::start_with(&upstream, &[&["--api-key-file", keys.as_str()][..], &origins].concat());
    let page = "origin: https://chat.example\r\nsec-fetch-site: cross-site\r\n";
    let may_read = |answer: &Answer| {
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://chat.example"), "{answer:?}");
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert!(answer.header("access-control-expose-headers").unwrap().contains("request-id"));
    };
    // A preflight has no key.
    let preflight = format!(
        "host: box\r\n{page}access-control-request-method: POST\r\naccess-control-request-headers: content-type,x-api-key\r\naccess-control-request-private-network: true\r\n"
    );
    let mut client = server.connect();
    client.send(format!("OPTIONS /v1/messages HTTP/1.1\r\n{preflight}\r\nGET / HTTP/1.1\r\n\r\n").as_bytes());
    let answer = client.head();
    assert_eq!(answer.status, 204);
    may_read(&answer);
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type,x-api-key"));
    assert_eq!(answer.header("access-control-allow-private-network"), Some("true"));
    assert_eq!(client.receive().header("access-control-allow-origin"), None, "the next request has no page");
    // A page may read that a path is not there, so a preflight for it is answered, too.
    client.send(format!("OPTIONS /nothing HTTP/1.1\r\n{preflight}\r\n").as_bytes());
    let answer = client.head();
    assert_eq!(answer.status, 204);
    may_read(&answer);
    // Answers of all kinds: whole, streamed, errors before and after the body, and a path that is not there.
    let key = format!("{page}x-api-key: sk-anna\r\n");
    let whole = client.ask(&post_with(&key, hello().to_string().as_bytes()));
    may_read(&whole);
    whole.message();
    let stream = client.ask(&post_with(&key, hello_stream().to_string().as_bytes()));
    may_read(&stream);
    stream.whole_events();
    for (request, status) in [
        (post_with(&key, b"nope"), 400),
        (post_with(page, hello().to_string().as_bytes()), 401),
        (format!("GET /nothing HTTP/1.1\r\n{page}\r\n").into_bytes(), 404),
        (format!("OPTIONS /v1/messages HTTP/1.1\r\n{page}\r\n").into_bytes(), 405),
        (format!("GET /health HTTP/1.1\r\n{page}\r\n").into_bytes(), 200),
    ] {
        // A connection of its own: one with an unread body is closed.
        let answer = server.connect().ask(&request);
        assert_eq!(answer.status, status);
        may_read(&answer);
    }
    // Two listed origins are two; others stay out.
    let answer = ask(&server, "GET", "/health", "origin: app://obsidian.md\r\n");
    assert_eq!(answer.header("access-control-allow-origin"), Some("app://obsidian.md"));
    for page in [EVIL, "origin: https://chat.example.evil.example\r\n", "origin: http://chat.example\r\n"] {
        is_refused(
            &ask(
                &server,
                "OPTIONS",
                "/v1/messages",
                &format!("{page}access-control-request-method: POST\r\n"),
            ),
            page,
        );
    }
}

#[test]
fn a_listed_origin_does_not_open_other_hosts() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--allow-origin", "http://localhost:3000"]);
    let page = "origin: http://localhost:3000\r\n";
    assert_eq!(ask(&server, "GET", "/health", &format!("host: localhost:4000\r\n{page}")).status, 200);
    is_refused(&ask(&server, "GET", "/health", &format!("host: evil.example\r\n{page}")), "host");
}

#[test]
fn bodies_of_a_form_are_refused() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let body = hello().to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            let answer = server.connect().ask(&post_bare(path, &format!("content-type: {kind}\r\n"), &body));
            assert_eq!((answer.status, answer.header("x-should-retry")), (415, Some("false")), "{kind}");
            let (name, message) = answer.error();
            assert_eq!(name, "invalid_request_error");
            assert!(message.ends_with("(with curl: -H 'content-type: application/json')"), "{message}");
        }
    }
    assert!(upstream.seen().is_empty());
    for headers in ["", "content-type: application/json; charset=utf-8\r\n", "content-type:\r\n"] {
        server.connect().ask(&post_bare("/v1/messages", headers, &body)).message();
    }
}

/// Logs what a hook sees of a request.
const SEES: &str = r#"return { api = 1, on_request = function(req)
    local headers = {}
    for name in pairs(req.headers) do headers[#headers + 1] = name end
    table.sort(headers)
    log.info("sees " .. req.client_ip .. " " .. tostring(req.user) .. " " .. req.model .. " " .. table.concat(headers, " ") .. ".")
end }"#;

#[test]
fn the_log_line_of_a_refused_request_has_all_that_is_known_of_it() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--api-key-file", &keys_file("refused")]);
    let ask = |path: &str, key: &str, body: &str| {
        server.connect().ask(&post_bare(path, &format!("x-api-key: {key}\r\n"), body)).status
    };
    let unfinished = r#"{"model":"claude-sonnet-5","stream":true,"messages":[]}"#;
    assert_eq!(ask("/v1/messages", "sk-guest", unfinished), 400);
    assert_eq!(ask("/v1/messages/count_tokens", "sk-guest", unfinished), 400);
    assert_eq!(ask("/v1/messages", "sk-guest", "[]"), 400);
    assert_eq!(ask("/v1/messages", "sk-nobody", unfinished), 401);
    assert!(upstream.seen().is_empty());
    let log = server.terminate_and_log();
    for line in [
        " 127.0.0.1 guest claude-sonnet-5 -> -/- stream 400 total ",
        ": 400 invalid_request_error: max_tokens: Field required",
        ": count_tokens: 400 invalid_request_error: messages: at least one message is required",
        " 127.0.0.1 guest - -> -/- whole 400 total ",
        " 127.0.0.1 - 401 authentication_error",
        " [POST /v1/messages]",
    ] {
        assert!(log.contains(line), "'{line}' in\n{log}");
    }
}

#[test]
fn hooks_and_the_log_name_the_owner_of_the_key_that_counts() {
    let upstream = Upstream::start();
    let hooks = hooks_file("whose-key", SEES);
    let server = Server::start_with(&upstream, &["--api-key-file", &keys_file("owners"), "--hooks", &hooks]);
    let body = hello().to_string();
    let mut lines: Vec<String> = Vec::new();
    for (headers, user) in [
        ("x-api-key: sk-guest\r\n", "guest"),
        ("x-api-key: sk-guest\r\nx-api-key: sk-annax\r\n", "guest"),
        ("x-api-key: sk-guest\r\nx-api-key: sk-anna\r\n", "guest"),
        ("x-api-key: nobody\r\nx-api-key: sk-guest\r\n", "guest"),
        ("authorization: Bearer sk-guest\r\nx-api-key: anything\r\n", "guest"),
        ("authorization: Bearer sk-guest\r\nx-api-key: sk-anna\r\n", "anna b."),
        ("authorization: Basic sk-anna\r\nauthorization: Bearer sk-guest\r\n", "guest"),
        ("x-api-key: sk-nameless\r\n", "nil"),
    ] {
        let headers =
            format!("{headers}cookie: sk-anna\r\nproxy-authorization: Basic sk-anna\r\nx-team: red\r\n");
        server.connect().ask(&post_with(&headers, body.as_bytes())).message();
        lines.push(format!("sees 127.0.0.1 {user} claude-sonnet-5 content-length content-type host x-team."));
        let owner = if user == "nil" { "-" } else { user };
        lines.push(format!(" 127.0.0.1 {owner} claude-sonnet-5 -> default/"));
    }
    let count = |headers: &str, body: &str| {
        server.connect().ask(&post_bare("/v1/messages/count_tokens", headers, body)).status
    };
    assert_eq!(count("x-api-key: sk-guest\r\n", "nope"), 400);
    assert_eq!(count("x-api-key: sk-nobody\r\n", &body), 401);
    assert_eq!(ask(&server, "GET", "/v1/models/none", "authorization: Bearer sk-anna\r\n").status, 404);
    lines.push(" 127.0.0.1 guest - -> -/- whole 400 ".into());
    lines.push(" 127.0.0.1 - 401 authentication_error".into());
    lines.push(" 127.0.0.1 anna b. 404 not_found_error".into());
    let log = server.terminate_and_log();
    // In any order: the line of a request comes when its answer is out, and the next request may have begun by then.
    for line in &lines {
        let count = lines.iter().filter(|other| *other == line).count();
        assert_eq!(log.matches(line).count(), count, "'{line}' in\n{log}");
    }
    assert!(!log.contains("sk-"), "{log}");
}

#[test]
fn a_hook_that_goes_by_the_key_fails_rather_than_find_none() {
    let upstream = Upstream::start();
    for name in ["x-api-key", "Authorization", "cookie", "proxy-authorization"] {
        let lua = format!(
            r#"return {{ api = 1, policy = "closed", on_request = function(req)
                if req.headers["{name}"] == "sk-guest" then return {{ reject = 403, message = "guests may not" }} end
            end }}"#
        );
        let hooks = hooks_file(&format!("by-key-{name}"), &lua);
        let server = Server::start_with(&upstream, &["--hooks", &hooks]);
        let answer =
            server.connect().ask(&post_with("x-api-key: sk-guest\r\n", hello().to_string().as_bytes()));
        assert_eq!(answer.status, 403);
        server.wait_for("is not shown to hooks");
        server.wait_for("req.user names the owner");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_client_has_one_address_on_every_socket() {
    let upstream = Upstream::start();
    let hooks = hooks_file("one-address", SEES);
    let socket = TcpListener::bind("[::]:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let arguments = [
        "serve",
        "--upstream",
        &upstream.url(),
        "--hooks",
        &hooks,
        "--allow-anonymous",
        "--log-level",
        "debug",
    ];
    let server = Server::run_activated(&arguments, socket.into());
    server.wait_for("upstream default: ");
    Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).post(&hello()).message();
    server.wait_for("sees 127.0.0.1 nil ");
    server.wait_for(" 127.0.0.1 - claude-sonnet-5 -> default/");
    Client::connect(([0, 0, 0, 0, 0, 0, 0, 1], port).into()).post(&hello()).message();
    server.wait_for("sees ::1 nil ");
    assert!(!server.terminate_and_log().contains("::ffff:"));
}

#[test]
fn only_a_trusted_proxy_names_another_address() {
    let upstream = Upstream::start();
    let hooks = hooks_file("proxies", SEES);
    let forwarded = |arguments: &[&str], headers: &str, expected: &str| {
        let server = Server::start_with(&upstream, &[&["--hooks", &hooks], arguments].concat());
        server.connect().ask(&post_with(headers, hello().to_string().as_bytes())).message();
        server.wait_for(&format!("sees {expected} nil "));
        server.wait_for(&format!(" {expected} - claude-sonnet-5 -> default/"));
    };
    let trusted = ["--trusted-proxy", "192.0.2.0/24", "--trusted-proxy", "127.0.0.1"];
    let header = "x-forwarded-for: 198.51.100.1, 198.51.100.2\r\nX-Forwarded-For: 192.0.2.7\r\n";
    forwarded(&[], header, "127.0.0.1");
    forwarded(&["--trusted-proxy", "192.0.2.0/24"], header, "127.0.0.1");
    forwarded(&trusted, header, "198.51.100.2");
    forwarded(&trusted, "x-forwarded-for: ::ffff:198.51.100.2\r\n", "198.51.100.2");
    forwarded(&trusted, "x-forwarded-for: unknown\r\n", "127.0.0.1");
    forwarded(&trusted, "x-real-ip: 198.51.100.1\r\nforwarded: for=198.51.100.1\r\n", "127.0.0.1");
}

#[test]
fn the_shipped_deny_list_holds_for_every_spelling_of_a_name() {
    let upstream = Upstream::start();
    let page = json!({"object": "list", "data": [{"id": "qwen3"}, {"id": "gpt-secret"}, {"id": "anthropic/own-gpt"}]});
    upstream.set_page("/v1/models", 200, &page.to_string());
    let lua = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/examples/deny-list.lua"))
        .unwrap();
    let hooks = hooks_file("deny-list", &lua);
    let server = Server::start_with(&upstream, &["--hooks", &hooks]);
    let send = |body: String| server.connect().ask(&post(body.as_bytes()));
    let named = |model: &str| {
        let mut body = hello();
        body["model"] = model.into();
        body.to_string()
    };
    for model in ["gpt-secret", "anthropic/gpt-secret", "claude-opus-5", "anthropic/claude-opus-5"] {
        assert_eq!(send(named(model)).status, 404, "{model}");
    }
    // An escaped name is the same name; of two names the last one counts, for the hook as for the rest.
    assert_eq!(send(named("X").replace("\"X\"", "\"\\u0067pt-secret\"")).status, 404);
    assert_eq!(send(named("X").replace("\"X\"", "\"qwen3\",\"model\":\"gpt-secret\"")).status, 404);
    assert!(upstream.seen().is_empty());
    for model in
        ["gpt-", "anthropic/anthropic/gpt-secret", " gpt-secret", "GPT-secret", "Anthropic/gpt-secret"]
    {
        send(named(model));
    }
    send(named("X").replace("\"X\"", "\"gpt-secret\",\"model\":\"qwen3\""));
    assert!(upstream.seen().iter().all(|one| one.body["model"] == "qwen3"));
}

#[test]
fn hooks_see_the_name_that_the_alias_table_looks_up_and_clients_get_their_own_back() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ spark = {{ url = "{}" }} }}, aliases = {{
            {{ "anthropic/own", upstream = "spark", model = "own" }},
            {{ "*/mixed", upstream = "spark", model = "mixed" }},
            {{ "gpt-*", upstream = "spark", model = "gpt" }},
            {{ "qwen*", upstream = "spark" }},
        }}, on_request = function(req)
            log.info("sees " .. req.model .. ".")
            if req.model == "gpt-answered" then return {{ respond = "no" }} end
        end, on_log = function(rec, req) log.info("logged " .. rec.model .. " " .. req.model .. ".") end }}"#,
        upstream.url()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file("names", &lua)], &[]);
    for (model, seen) in [
        ("anthropic/own", "anthropic/own"),
        ("anthropic/mixed", "anthropic/mixed"),
        ("anthropic/gpt-5", "gpt-5"),
        ("anthropic/gpt-answered", "gpt-answered"),
        ("gpt-5", "gpt-5"),
        ("anthropic/anthropic/own", "anthropic/own"),
    ] {
        for mut body in [hello(), hello_stream()] {
            body["model"] = model.into();
            let answer = server.connect().post(&body);
            let told: Value = match body["stream"] == true {
                true => answer.data("message_start")[0]["message"]["model"].clone(),
                false => answer.json()["model"].clone(),
            };
            assert_eq!(told, model);
        }
        server.wait_for(&format!("sees {seen}."));
        server.wait_for(&format!("logged {model} {seen}."));
        server.wait_for(&format!(" 127.0.0.1 - {model} -> "));
    }
}

#[test]
fn connections_without_a_key_make_room_for_one_with_a_key() {
    let upstream = Upstream::start();
    let arguments = ["--api-key-file", &keys_file("places"), "--connections-max", "20"];
    let server = Server::start_with(&upstream, &arguments);
    let mut idle: Vec<_> = (0..20).map(|_| server.connect()).collect();
    // Some have had an answer that needs no key, some have sent half a head.
    idle[3].ask(b"GET /health HTTP/1.1\r\n\r\n");
    idle[4].send(b"GET / HT");
    for _ in 0..25 {
        let mut client = server.connect();
        let request = post_with("x-api-key: sk-anna\r\n", hello().to_string().as_bytes());
        assert_eq!(client.ask(&request).status, 200);
    }
}

/// Reads a file of keys with this text at the start.
fn start_with_keys(upstream: &Upstream, name: &str, text: &str) -> (Server, String) {
    let path = keys_file(name);
    std::fs::write(&path, text).unwrap();
    (Server::start_with(upstream, &["--api-key-file", &path]), path)
}

#[test]
fn a_key_that_was_taken_out_ends_at_a_reload_and_its_streams_go_on() {
    let upstream = Upstream::start();
    let (arrives, arrived) = std::sync::mpsc::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel();
    upstream.next(move |call| {
        arrives.send(()).unwrap();
        goes_on.recv().unwrap();
        call.stream_head();
        text_chunks("Hello.").iter().for_each(|chunk| call.chunk(chunk));
        call.done()
    });
    let (old, new) = ("x-api-key: sk-old-0123456789ab\r\n", "x-api-key: sk-new-0123456789ab\r\n");
    let (server, path) = start_with_keys(&upstream, "reloaded", "sk-old-0123456789ab anna\n");
    let models = |key: &str| ask(&server, "GET", "/v1/models", key).status;
    assert_eq!((models(old), models(new)), (200, 401));
    let mut stream = server.connect();
    stream.send(&post_with(old, hello_stream().to_string().as_bytes()));
    arrived.recv().unwrap();
    let mut kept = server.connect();
    assert_eq!(kept.ask(format!("GET /v1/models HTTP/1.1\r\n{old}\r\n").as_bytes()).status, 200);
    std::fs::write(&path, "sk-new-0123456789ab anna\nsk-new-0123456789ab guest\n").unwrap();
    server.hang_up();
    server.wait_for("keys of clients loaded: 1");
    server.wait_for("line 2 is left out: it has the same key as line 1");
    assert_eq!((models(old), models(new)), (401, 200));
    // Also on a connection that an earlier request of the key has opened.
    assert_eq!(kept.ask(format!("GET /v1/models HTTP/1.1\r\n{old}\r\n").as_bytes()).status, 401);
    go_on.send(()).unwrap();
    stream.receive().whole_events();
    // A file without keys, or without the file, changes nothing.
    for text in ["", "# nobody\n", "anna: sk-1\n"] {
        std::fs::write(&path, text).unwrap();
        server.hang_up();
        server.wait_for("reload failed; still running the previous configuration");
        assert_eq!((models(old), models(new)), (401, 200), "{text:?}");
    }
    std::fs::remove_file(&path).unwrap();
    server.hang_up();
    server.wait_for("No such file");
    assert_eq!((models(old), models(new)), (401, 200));
    std::fs::create_dir(&path).unwrap();
    server.hang_up();
    server.wait_for("it is not a regular file any more");
    assert_eq!((models(old), models(new)), (401, 200));
    std::fs::remove_dir(&path).unwrap();
}

#[test]
fn a_line_that_is_most_likely_a_mistake_is_warned_of_without_the_key() {
    let upstream = Upstream::start();
    let (server, path) =
        start_with_keys(&upstream, "misread", "\u{feff}anna sk-4711-4711-4711\r\n\r\nanna: x\r\nshort\r\n");
    server
        .wait_for(&format!("WARN  {path}: line 1 is left out: something like a key follows its first word"));
    server.wait_for(&format!("WARN  {path}: line 3 is left out: it begins with a name"));
    server.wait_for(&format!("WARN  {path}: line 4: the key has fewer than 16 characters"));
    for word in ["anna", "anna:"] {
        assert_eq!(ask(&server, "GET", "/v1/models", &format!("x-api-key: {word}\r\n")).status, 401);
    }
    assert!(!server.terminate_and_log().contains("4711"));
}

#[test]
fn a_new_key_is_a_line_for_the_file() {
    let upstream = Upstream::start();
    let (code, line, advice) = output(&["key", "new", "anna b."]);
    assert_eq!(code, Some(0), "{advice}");
    let key = line.strip_suffix(" anna b.\n").unwrap();
    assert!(key.starts_with("sk-") && key.len() == 27, "{line}");
    assert!(advice.contains(&format!("SPARKGAP_API_KEY={key} sparkgap claude")), "{advice}");
    let (server, _) = start_with_keys(&upstream, "made", &line);
    assert_eq!(ask(&server, "GET", "/v1/models", &format!("x-api-key: {key}\r\n")).status, 200);
    assert!(!server.terminate_and_log().contains("WARN"));
    for name in ["", " ", "a\nsk-1", "a\u{202e}"] {
        let (code, line, _) = output(&["key", "new", name]);
        assert_eq!((code, line.as_str()), (Some(1), ""), "{name:?}");
    }
}

#[test]
fn a_right_key_does_not_wait_for_wrong_ones() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--api-key-file", &keys_file("guesses")]);
    let guess = b"GET /v1/models HTTP/1.1\r\nx-api-key: sk-guess\r\nconnection: close\r\n\r\n";
    let guesses = server.send_at_once(20, guess);
    // These are all answered while the last guesses wait; at the latest after them.
    for _ in 0..50 {
        assert_eq!(ask(&server, "GET", "/v1/models", "x-api-key: sk-anna\r\n").status, 200);
    }
    assert!(guesses.into_iter().all(|guess| guess.join().unwrap() == 401));
}

#[test]
fn wrong_keys_on_every_connection_keep_nobody_out() {
    let upstream = Upstream::start();
    let arguments = ["--api-key-file", &keys_file("crowd"), "--connections-max", "20"];
    let server = Server::start_with(&upstream, &arguments);
    let guesses = b"GET /v1/models HTTP/1.1\r\nx-api-key: sk-guess\r\n\r\n".repeat(40);
    let mut crowd: Vec<_> = (0..20).map(|_| server.connect()).collect();
    crowd.iter_mut().for_each(|guesser| guesser.send(&guesses));
    // The answers have begun to wait. A connection whose head is just being read may still count as busy.
    assert_eq!(crowd[0].receive().status, 401);
    let mut refused = 0;
    for _ in 0..50 {
        match ask(&server, "GET", "/v1/models", "x-api-key: sk-anna\r\n").status {
            200 => {}
            529 => refused += 1,
            status => panic!("{status}"),
        }
    }
    assert!(refused < 10, "{refused} of 50 were refused");
}

#[test]
fn a_file_that_is_a_pipe_does_not_keep_the_end_from_being_heard() {
    let upstream = Upstream::start();
    let hooks = hooks_file("a-pipe", "return { api = 1 }");
    let server = Server::start_with(&upstream, &["--hooks", &hooks]);
    std::fs::remove_file(&hooks).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&hooks).status().unwrap().success());
    server.hang_up();
    // Nobody writes to the pipe, so this reload never ends.
    assert!(server.terminate());
    std::fs::remove_file(&hooks).unwrap();
}
