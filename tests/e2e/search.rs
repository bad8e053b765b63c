//! Web searches: requests that are one search are answered by a scripted SearXNG, without any model.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

use super::client::{Client, post};
use super::server::{Server, hooks_file, output};
use super::upstream::Upstream;

/// A request as Claude Code's WebSearch sends it.
fn search(query: &str) -> Value {
    json!({"model": "claude-sonnet-5-5", "max_tokens": 32_000, "stream": true,
        "system": [{"type": "text", "text": "You are an assistant for performing a web search tool use"}],
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": format!("Perform a web search for the query: {query}")}]}],
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        "tool_choice": {"type": "tool", "name": "web_search"}})
}

fn whole(mut body: Value) -> Value {
    body["stream"] = false.into();
    body
}

/// An engine that reads the first line of each request and says nothing. Returns its address, and the connections as they come.
pub(super) fn silent_engine() -> (SocketAddr, Receiver<BufReader<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, was_asked) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            asked.send(stream).unwrap();
        }
    });
    (address, was_asked)
}

/// SearXNG's page for two results.
fn page() -> String {
    json!({"query": "q", "number_of_results": 0, "answers": [], "corrections": [], "infoboxes": [], "suggestions": [],
        "unresponsive_engines": [["mojeek", "timeout"]], "results": [
        {"url": "https://rust-lang.org/", "title": "Rust", "content": "A language for everyone.", "engine": "brave",
            "template": "default.html", "score": 2.0, "category": "general", "publishedDate": null},
        {"url": "https://blog.example.com/rust", "title": "On Rust", "content": "x".repeat(900), "engine": "brave",
            "publishedDate": "2026-11-02T00:00:00"}]})
    .to_string()
}

/// A sparkgap in front of this upstream, with more keys in its file.
fn serve(name: &str, upstream: &Upstream, more: &str) -> Server {
    let lua = format!(r#"return {{ upstreams = {{ box = {{ url = "{}" }} }}, {more} }}"#, upstream.url());
    Server::run(&["--hooks", &hooks_file(name, &lua)], &[])
}

/// The key of a file that names the engine at this upstream's address.
fn engine(upstream: &Upstream) -> String {
    format!(r#"search = {{ searxng = "{}/" }}"#, upstream.url().trim_end_matches("/v1"))
}

fn code(content: &[Value]) -> &Value {
    &content[1]["content"]["error_code"]
}

#[test]
fn a_search_is_answered_without_a_model() {
    let (upstream, searxng) = (Upstream::start(), Upstream::start());
    searxng.set_page("/search?q=rust+2027&format=json", 200, &page());
    let server = serve("search", &upstream, &engine(&searxng));
    let answer = server.connect().post(&search("rust 2027"));
    let blocks = answer.whole_events();
    let kinds: Vec<&str> = blocks.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["server_tool_use", "web_search_tool_result", "text"]);
    assert_eq!(blocks[0]["input"], json!({"query": "rust 2027"}));
    assert_eq!((&blocks[0]["name"], &blocks[0]["id"]), (&json!("web_search"), &blocks[1]["tool_use_id"]));
    let hits = blocks[1]["content"].as_array().unwrap();
    assert_eq!((&hits[0]["title"], &hits[0]["page_age"]), (&json!("Rust"), &Value::Null));
    assert_eq!(hits[1]["page_age"], "2026-11-02T00:00:00");
    let text = blocks[2]["text"].as_str().unwrap();
    assert!(text.contains("1. Rust\nhttps://rust-lang.org/\nA language for everyone.\n"), "{text}");
    let longest = text.lines().map(|line| line.chars().count()).max();
    assert_eq!(longest, Some(400), "{text}");
    let end = &answer.data("message_delta")[0];
    assert_eq!(end["delta"]["stop_reason"], "end_turn");
    assert_eq!(end["usage"]["server_tool_use"], json!({"web_search_requests": 1}));

    let answer = server.connect().post(&whole(search("rust 2027")));
    assert_eq!(answer.message()[1]["content"][0]["url"], "https://rust-lang.org/");
    assert_eq!(answer.json()["usage"]["server_tool_use"], json!({"web_search_requests": 1}));
    let line = server.wait_for(answer.header("request-id").unwrap());
    assert!(line.contains(" -> search/") && line.contains(" 200 "), "{line}");
    assert!(upstream.seen().is_empty(), "the model was asked");
}

#[test]
fn the_client_s_rules_hold() {
    let (upstream, searxng) = (Upstream::start(), Upstream::start());
    let server = serve("search-rules", &upstream, &engine(&searxng));
    let urls = |tool: Value| -> Vec<String> {
        let mut body = whole(search("q"));
        body["tools"][0].as_object_mut().unwrap().extend(tool.as_object().unwrap().clone());
        let content = server.connect().post(&body).message();
        let hits = content[1]["content"].as_array().cloned().unwrap_or_default();
        hits.iter().map(|hit| hit["url"].as_str().unwrap().to_owned()).collect()
    };
    searxng.set_page("/search?q=q&format=json", 200, &page());
    searxng.set_page("/search?q=q+site%3Aexample.com&format=json", 200, &page());
    assert_eq!(urls(json!({"allowed_domains": ["example.com"]})), ["https://blog.example.com/rust"]);
    assert_eq!(urls(json!({"blocked_domains": ["example.com"]})), ["https://rust-lang.org/"]);
    assert_eq!(urls(json!({"max_uses": 0})), Vec::<String>::new());
}

#[test]
fn a_failed_search_tells_client_and_operator_why() {
    let (upstream, searxng) = (Upstream::start(), Upstream::start());
    let server = serve("search-failed", &upstream, &engine(&searxng));
    let ask = |query: &str| server.connect().post(&whole(search(query))).message();
    for (query, status, body, expected, logged) in [
        ("a", 403, "<h1>Forbidden</h1>", "unavailable", "add json to search.formats"),
        ("b", 429, "Too Many Requests", "too_many_requests", "server.limiter"),
        ("c", 200, "<html>a page for people</html>", "unavailable", "is not JSON with results"),
        ("d", 500, "x", "unavailable", "status 500"),
        ("e", 302, "x", "unavailable", "redirect"),
    ] {
        searxng.set_page(&format!("/search?q={query}&format=json"), status, body);
        assert_eq!(code(&ask(query)), expected, "{query}");
        server.wait_for(logged);
    }
    assert_eq!(code(&ask("")), "invalid_tool_input");
    assert_eq!(code(&ask(&"ö".repeat(1_001))), "query_too_long");
    let failed = server.connect().post(&search("a"));
    assert_eq!(failed.whole_events().len(), 3);
    assert_eq!(failed.data("message_delta")[0]["usage"]["server_tool_use"], Value::Null);

    let limits = [
        (json!({"allowed_domains": "example.com"}), "tools.0.allowed_domains: Input should be a valid list"),
        (json!({"blocked_domains": [null, 5]}), "tools.0.blocked_domains.0: Input should be a valid string"),
        (json!({"max_uses": -1}), "tools.0.max_uses: Input should be a valid integer"),
        (json!({"max_uses": "3"}), "tools.0.max_uses: Input should be a valid integer"),
    ];
    for (limit, words) in limits {
        let mut body = search("a");
        body["tools"][0].as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
        let answer = server.connect().post(&body);
        assert_eq!((answer.status, answer.error().1.as_str()), (400, words));
    }

    // Requests that are no search, or not a valid one.
    let mut body = search("a");
    body["messages"] = json!([]);
    assert_eq!(server.connect().post(&body).status, 400);
    let mut body = search("a");
    body["max_tokens"] = json!("many");
    assert_eq!(server.connect().post(&body).error().1, "max_tokens: Input should be a valid integer");
}

#[test]
fn doctor_tries_the_engine() {
    let (upstream, searxng) = (Upstream::start(), Upstream::start());
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}" }} }}, {} }}"#,
        upstream.url(),
        engine(&searxng)
    );
    let hooks = hooks_file("search-doctor", &lua);
    for (status, page, level, words) in [
        (200, page(), "ok", "with results"),
        (200, r#"{"results":[]}"#.to_owned(), "warn", "without results"),
        (403, String::new(), "fail", "add json to search.formats"),
    ] {
        searxng.set_page("/search?q=sparkgap&format=json", status, &page);
        let (_, out, err) = output(&["doctor", "--json", "--hooks", &hooks]);
        let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}"));
        let check = &told.as_array().unwrap().last().unwrap()["checks"][0];
        assert_eq!((&check["check"], &check["level"]), (&json!("web search"), &json!(level)));
        assert!(check["text"].as_str().unwrap().contains(words), "{check}");
    }
}

#[test]
fn without_an_engine_a_search_is_refused_as_before() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let answer = server.connect().post(&search("a"));
    assert_eq!(answer.status, 400);
    assert!(answer.error().1.contains("web_search_20250305 is not supported"), "{answer:?}");
}

#[test]
fn a_hook_changes_answers_and_refuses_searches() {
    let (upstream, searxng) = (Upstream::start(), Upstream::start());
    searxng.set_page("/search?q=changed+twice&format=json", 200, &page());
    let hook = r#"on_search = function(query, req)
        if query == "change" then return "changed twice" end
        if query == "answer" then
            return { results = { { url = "http://wiki.lan/", snippet = "Ours." }, { url = "no address" } } }
        end
        if query == "refuse" then return { error = "too_many_requests" } end
        if query == "own words" then return { error = "not in this house" } end
        if query == "number" then return { error = 5 } end
        if query == "nil" then return nil, "no, nobody" end
        if query == "let pass" then return { error = false } end
        if query == "broken" then return { results = "many" } end
        if query == "none" then return { results = {} } end
    end"#;
    let server = serve("search-hook", &upstream, &format!("{}, {hook}", engine(&searxng)));
    let ask = |query: &str| server.connect().post(&whole(search(query))).message();
    let changed = ask("change");
    assert_eq!(changed[0]["input"]["query"], "change");
    assert_eq!(changed[1]["content"].as_array().unwrap().len(), 2);
    let own = ask("answer");
    assert_eq!(own[1]["content"].as_array().unwrap().len(), 1);
    assert!(
        own[2]["text"].as_str().unwrap().contains("http://wiki.lan/\nhttp://wiki.lan/\nOurs."),
        "{own:?}"
    );
    assert_eq!(ask("none")[1]["content"], json!([]));
    assert_eq!(code(&ask("refuse")), "too_many_requests");
    for refused in ["own words", "number", "nil"] {
        assert_eq!(code(&ask(refused)), "unavailable", "{refused}");
    }
    server.wait_for("on_search refused a web search: not in this house");
    server.wait_for("on_search refused a web search: no, nobody");
    searxng.set_page("/search?q=let+pass&format=json", 200, &page());
    assert_eq!(ask("let pass")[1]["content"].as_array().unwrap().len(), 2);
    searxng.set_page("/search?q=broken&format=json", 200, &page());
    assert_eq!(
        ask("broken")[1]["content"].as_array().unwrap().len(),
        2,
        "the failed hook is as if it were not there"
    );
    server.wait_for("the returned results must be a list");

    let closed = format!(r#"policy = "closed", {hook}"#);
    let server = serve("search-closed", &upstream, &closed);
    assert_eq!(server.connect().post(&search("broken")).status, 403);
    assert_eq!(code(&server.connect().post(&whole(search("other"))).message()), "unavailable");
}

#[test]
fn searches_run_at_once_with_pings_and_end_with_their_clients() {
    const COUNT: usize = 8;
    let upstream = Upstream::start();
    let (address, was_asked) = silent_engine();
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}" }} }}, search = {{ searxng = "http://{address}" }} }}"#,
        upstream.url()
    );
    let hooks = hooks_file("search-many", &lua);
    let server = Server::run(&["serve", "--open-after", "0", "--ping-every", "1", "--hooks", &hooks], &[]);
    let mut clients: Vec<Client> = (0..COUNT)
        .map(|i| {
            let mut client = server.connect();
            client.send(&post(search(&format!("q{i}")).to_string().as_bytes()));
            client
        })
        .collect();
    // All engines are asked before one of them answers.
    let streams: Vec<_> = (0..COUNT).map(|_| was_asked.recv_timeout(super::HANG).unwrap()).collect();
    let mut first = clients.remove(0);
    first.head();
    first.read_until("event: ping\ndata: {\"type\":\"ping\"}\n\nevent: ping");
    drop(first);
    server.wait_for("the client has left");
    for mut stream in streams {
        let page = page();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", page.len());
        // The search of the client that has left may be over.
        let _ = stream.get_mut().write_all(format!("{head}{page}").as_bytes());
    }
    for mut client in clients {
        assert_eq!(client.receive().whole_events().len(), 3);
    }
}

#[test]
fn the_command_hook_tries_on_search() {
    let run = |name: &str, body: &str, request: Option<Value>| {
        let lua = format!(
            r#"return {{ upstreams = {{ box = {{ url = "http://127.0.0.1:9/v1" }} }}, on_search = function(query) {body} end }}"#
        );
        let file = hooks_file(name, &lua);
        let request = request.map(|request| hooks_file(&format!("{name}-request"), &request.to_string()));
        let mut arguments = vec!["hook", &file];
        if let Some(request) = &request {
            arguments.extend(["--request", request]);
        }
        output(&arguments)
    };
    let (code, out, err) = run("search-sample", "error('x')", None);
    assert!(code == Some(1) && out.contains("1 failed hooks"), "{out}{err}");
    let (code, out, _) = run("search-refusal", "return { error = 'no' }", None);
    assert!(code == Some(0) && out.contains("\nrefused with unavailable\n"), "{out}");
    let (code, out, _) = run("search-asked", "return query .. ' 2'", Some(search("rust")));
    assert!(code == Some(0) && out.contains("searches  \"rust\"; no model"), "{out}");
    assert!(out.contains("on_search  \"rust\"\nthe engine is asked for \"rust 2\"\n"), "{out}");
}
