//! The recordings that the live page shows: their parts, who sees them, and the reason why there is none. `tests/ui` opens
//! them in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};

use super::client::{Answer, Client, hello, hello_stream, post_with};
use super::server::{Server, hooks_file, output};
use super::upstream::{Gate, Upstream, text_chunks};

/// A key of the form that no pattern knows.
const CANARY: &str = "canary.4711/of+a=client";

const PARTS: [&str; 6] =
    ["client_body", "hook_changes", "upstream_body", "difference", "upstream_answer", "client_answer"];

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("recordings-{name}"));
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn start(upstream: &Upstream, folder: &Path, more: &[&str]) -> Server {
    Server::start_with(upstream, &[&["--state", folder.to_str().unwrap()][..], more].concat())
}

fn get(server: &Server, target: &str, headers: &str) -> Answer {
    server.connect().ask(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes())
}

/// Sends a request, and returns its id.
fn send(server: &Server, headers: &str, body: &Value) -> String {
    let answer = server.connect().ask(&post_with(headers, body.to_string().as_bytes()));
    answer.header("request-id").unwrap().to_owned()
}

fn ask(server: &Server, id: &str, part: &str, headers: &str) -> Answer {
    get(server, &format!("/ui/recording/{id}?part={part}"), headers)
}

/// A part of a recording, once it was written.
fn part(server: &Server, id: &str, part: &str, headers: &str) -> Value {
    loop {
        let answer = ask(server, id, part, headers);
        match answer.status {
            200 => return answer.json(),
            // The answer is here a moment before its request has ended, and its recording is written a moment later.
            404 | 409 => {}
            _ => panic!("{answer:?}"),
        }
    }
}

fn text(told: &Value) -> &str {
    told["text"].as_str().unwrap()
}

/// The status and the text of an error.
fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, answer.error().1)
}

#[test]
fn each_part_of_a_recorded_turn_is_shown() {
    let (upstream, folder) = (Upstream::start(), folder("parts"));
    let hooks = hooks_file(
        "recordings",
        "return { on_request = function(req) req.body.system = 'Be brief.' req.body.temperature = 0.5 end }",
    );
    let server = start(&upstream, &folder, &["--record", "all", "--hooks", &hooks]);
    let session = "x-claude-code-session-id: s-1\r\n";
    let mut body = hello_stream();
    upstream.next_chunks(text_chunks("Hello \u{202e}there"));
    let first = send(&server, session, &body);
    let told = part(&server, &first, "difference", "");
    assert!(text(&told).is_empty() && told["notes"].to_string().contains("no earlier turn"), "{told}");

    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "Hello"}));
    messages.push(json!({"role": "user", "content": "What\u{202e} now?"}));
    upstream.next_chunks(text_chunks("S\u{fc}dwind"));
    let id = send(&server, session, &body);
    let told = part(&server, &id, "client_body", "");
    assert!(text(&told).starts_with("{\n  \""), "{told}");
    assert!(text(&told).contains("What\\u202e now?") && !text(&told).contains("brief"), "{told}");
    assert_eq!((&told["request_id"], &told["part"]), (&json!(id), &json!("client_body")));
    assert_eq!((&told["size"], &told["notes"]), (&told["shown"], &json!([])));
    let told = part(&server, &id, "hook_changes", "");
    assert_eq!(text(&told), "+ system: \"Be brief.\"\n+ temperature: 0.5\n");
    let told = part(&server, &id, "upstream_body", "");
    assert!(text(&told).contains("\"content\": \"Be brief.\""), "{told}");
    assert!(told["notes"][0].as_str().unwrap().starts_with("sent to default after "));
    let told = part(&server, &id, "difference", "");
    let added = "+     {\n+       \"role\": \"assistant\",\n+       \"content\": \"Hello\"\n+     },\n";
    assert!(text(&told).contains(added) && !text(&told).contains("\n- "), "{told}");
    assert_eq!(told["notes"], json!([format!("compared with {first}")]));
    let (_, shown, _) = output(&["show", &id, "--diff", "--state", folder.to_str().unwrap()]);
    // The command shows these characters in the form of the terminal.
    assert_eq!(shown.replace("\\u{202e}", "\\u202e"), text(&told));
    let told = part(&server, &id, "upstream_answer", "");
    let is_event = |line: &str| line.contains(" ms  data: ");
    assert!(text(&told).lines().all(is_event) && text(&told).contains("S\u{fc}dwind"), "{told}");
    let told = part(&server, &id, "client_answer", "");
    assert!(text(&told).contains(" ms  event: message_start\n             data: {"), "{told}");
    assert!(text(&told).contains(" ms  event: message_stop\n"), "{told}");

    upstream.next_answer(400, r#"{"error":{"message":"no such adapter"}}"#);
    let id = send(&server, "", &hello());
    let told = part(&server, &id, "upstream_answer", "");
    assert!(text(&told).contains(" ms  refused {\"status\":400"), "{told}");
    assert!(text(&told).contains("\n    \"message\": \"no such adapter\"\n"), "{told}");
    let told = part(&server, &id, "client_answer", "");
    assert!(text(&told).contains("no such adapter"), "{told}");
    assert!(server.terminate());
}

#[test]
fn a_part_that_is_too_long_is_cut_and_says_so() {
    let (upstream, folder) = (Upstream::start(), folder("cut"));
    let server = start(&upstream, &folder, &["--record", "all"]);
    let mut body = hello();
    body["messages"][0]["content"] = format!("{}\u{0}\n", "long \u{e9} ".repeat(150_000)).into();
    let id = send(&server, "", &body);
    for (name, command) in [("client_body", ""), ("upstream_body", " --curl")] {
        let told = part(&server, &id, name, "");
        let (size, shown) = (told["size"].as_u64().unwrap(), told["shown"].as_u64().unwrap());
        assert!(size > 1_000_000 && (262_140..=262_144).contains(&shown), "{size} {shown}");
        let expected = format!(
            "only the first {shown} of {size} bytes are shown: `sparkgap show {id}{command}` prints all that was kept, on the server, with --state DIR if serve has it"
        );
        assert!(told["notes"].as_array().unwrap().contains(&json!(expected)), "{}", told["notes"]);
        assert!(text(&told).len() < 300_000 && !text(&told).contains('\u{fffd}'));
    }
    assert!(server.terminate());
}

#[test]
fn a_key_stands_in_no_part() {
    let (upstream, folder) = (Upstream::start(), folder("canary"));
    let keys = folder.with_extension("keys");
    fs::write(&keys, format!("{CANARY} anna\n")).unwrap();
    let hooks = hooks_file(
        "recordings-canary",
        &format!("return {{ on_request = function(req) req.body.system = 'the key {CANARY}' end }}"),
    );
    let server = start(
        &upstream,
        &folder,
        &["--record", "all", "--api-key-file", keys.to_str().unwrap(), "--hooks", &hooks],
    );
    let mut body = hello_stream();
    body["messages"][0]["content"] = format!("my key is {CANARY}").into();
    let headers = format!("x-api-key: {CANARY}\r\nx-claude-code-session-id: s-1\r\n");
    for _ in 0..2 {
        upstream.next_chunks(text_chunks(&format!("You said {CANARY}")));
        let id = send(&server, &headers, &body);
        for name in PARTS {
            let told = part(&server, &id, name, &headers);
            assert!(!told.to_string().contains(CANARY), "{name}");
            assert!(name == "difference" || told.to_string().contains("*****"), "{told}");
        }
        body["messages"][0]["content"] = format!("again, my key is {CANARY}").into();
    }
    assert!(server.terminate());
}

#[test]
fn only_the_page_and_the_own_client_see_a_recording() {
    let (upstream, folder) = (Upstream::start(), folder("access"));
    let keys = folder.with_extension("keys");
    let (anna, ben) = ("sk-anna-0123456789abcdef", "sk-ben-0123456789abcdefg");
    fs::write(&keys, format!("{anna} anna\n{ben} ben\n")).unwrap();
    let server = start(&upstream, &folder, &["--record", "all", "--api-key-file", keys.to_str().unwrap()]);
    let session = "x-claude-code-session-id: s-1\r\n";
    let of = |key: &str| format!("x-api-key: {key}\r\n{session}");
    let mut body = hello();
    body["messages"][0]["content"] = "a secret plan".into();
    let id = send(&server, &of(anna), &body);
    assert!(text(&part(&server, &id, "client_body", &of(anna))).contains("a secret plan"));
    for headers in ["", "x-api-key: sk-wrong\r\n", "cookie: sparkgap_ui=guess\r\n"] {
        assert_eq!(ask(&server, &id, "client_body", headers).status, 401, "{headers}");
    }
    let (status, why) = refused(&ask(&server, &id, "client_body", &of(ben)));
    assert!(status == 403 && why.contains("another client's") && !why.contains("plan"), "{why}");
    // The name of a session is its client's choice: it must not open the turn before of somebody else.
    let other = send(&server, &of(ben), &hello());
    let told = part(&server, &other, "difference", &of(ben));
    assert!(text(&told).is_empty() && !told.to_string().contains("plan"), "{told}");

    let login = json!({"key": anna}).to_string();
    let head = format!(
        "POST /ui/login HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{login}",
        login.len()
    );
    let answer = server.connect().ask(head.as_bytes());
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap();
    let cookie = format!("cookie: {cookie}\r\n");
    let answer = ask(&server, &id, "client_body", &cookie);
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    for foreign in ["origin: https://evil.example\r\n", "sec-fetch-site: cross-site\r\n"] {
        assert_eq!(ask(&server, &id, "client_body", &format!("{cookie}{foreign}")).status, 403, "{foreign}");
    }
    for method in ["POST", "HEAD", "DELETE"] {
        let head = format!(
            "{method} /ui/recording/{id}?part=client_body HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n{cookie}\r\n"
        );
        let mut client = server.connect();
        client.send(head.as_bytes());
        assert_eq!(client.head().status, 405, "{method}");
    }
    fs::write(&keys, format!("{ben} ben\n")).unwrap();
    server.hang_up();
    server.wait_for("keys of clients loaded: 1");
    assert_eq!(ask(&server, &id, "client_body", &cookie).status, 401, "the session has ended with its key");
    assert!(server.terminate());
}

#[test]
fn a_page_of_another_host_gets_no_recording() {
    let (upstream, folder) = (Upstream::start(), folder("hosts"));
    let server = start(&upstream, &folder, &["--record", "all"]);
    let id = send(&server, "", &hello());
    part(&server, &id, "client_body", "");
    let head =
        format!("GET /ui/recording/{id}?part=client_body HTTP/1.1\r\nhost: rebound.evil.example\r\n\r\n");
    assert_eq!(server.connect().ask(head.as_bytes()).status, 403);
}

#[test]
fn a_request_without_a_recording_says_why() {
    let (upstream, folder) = (Upstream::start(), folder("missing"));
    let unknown = "req_0123456789abcdefghijABCD";
    let server = Server::start(&upstream);
    let (status, why) = refused(&ask(&server, unknown, "client_body", ""));
    assert!(status == 404 && why.contains("--state DIR") && why.contains("--record"), "{why}");
    assert!(server.terminate());

    for (mode, reason) in [("off", "--record errors, or all"), ("errors", "only those that fail are")] {
        let server = start(&upstream, &folder, &["--record", mode]);
        let id = send(&server, "", &hello());
        let why = loop {
            let (status, why) = refused(&ask(&server, &id, "client_answer", ""));
            if status == 404 {
                break why;
            }
            assert_eq!(status, 409, "{why}");
        };
        assert!(why.contains(reason), "{why}");
        let (status, why) = refused(&ask(&server, unknown, "client_body", ""));
        assert!(status == 404 && why.contains("no request of this id is known"), "{why}");
        assert!(server.terminate());
    }

    let server = start(&upstream, &folder, &["--record", "all"]);
    let gate = Gate::default();
    let waits = gate.clone();
    upstream.next(move |call| {
        call.stream_head();
        text_chunks("slow").iter().for_each(|chunk| call.chunk(chunk));
        waits.wait();
        call.done()
    });
    let mut client = server.connect();
    client.send(&post_with("", hello_stream().to_string().as_bytes()));
    let id = client.head().header("request-id").unwrap().to_owned();
    let (status, why) = refused(&ask(&server, &id, "client_body", ""));
    assert!(status == 409 && why.contains("still running"), "{why}");
    gate.open();
    while client.piece().is_some() {}
    part(&server, &id, "client_body", "");
    for wrong in ["", "?part=", "?part=all", "?part=client_body%00", "?parts=client_body"] {
        let (status, why) = refused(&get(&server, &format!("/ui/recording/{id}{wrong}"), ""));
        assert!(status == 400 && why.contains("client_body, hook_changes"), "{wrong}: {why}");
    }
    let long = format!("req_{}", "a".repeat(2000));
    for wrong in
        ["", "last", "..", "../../etc/passwd", "%2e%2e%2fsparkgap.db", "req_", "req_a'--", "req_%00", &long]
    {
        assert_eq!(ask(&server, wrong, "client_body", "").status, 404, "{wrong}");
    }
    fs::remove_file(folder.join("sparkgap.db")).unwrap();
    let (status, why) = refused(&ask(&server, &id, "client_body", ""));
    assert!(status == 500 && why.contains("cannot be read now") && !why.contains("sparkgap.db"), "{why}");
    assert!(server.terminate());
}

#[test]
fn recordings_are_read_while_others_are_written() {
    let (upstream, folder) = (Upstream::start(), folder("crowd"));
    let server = start(&upstream, &folder, &["--record", "all"]);
    let mut body = hello();
    body["messages"][0]["content"] = "many words ".repeat(20_000).into();
    let first = send(&server, "", &body);
    part(&server, &first, "client_body", "");
    thread::scope(|scope| {
        for at in 0..6 {
            let (address, first) = (server.address, &first);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for round in 0..8 {
                    let name = PARTS[(at + round) % PARTS.len()];
                    let target =
                        format!("GET /ui/recording/{first}?part={name} HTTP/1.1\r\nhost: localhost\r\n\r\n");
                    assert_eq!(client.ask(target.as_bytes()).status, 200, "{name}");
                }
            });
        }
        for _ in 0..20 {
            send(&server, "", &body);
        }
    });
    assert!(server.terminate());
    let (_, rows, _) = output(&["requests", "--state", folder.to_str().unwrap()]);
    assert_eq!(rows.matches(" recorded").count(), 21, "{rows}");
}
