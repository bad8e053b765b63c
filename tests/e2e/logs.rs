//! The log: what a stranger's words and a reader who has left can do to it, and keys, which are never in it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::client::{Client, hello, hello_stream, post, post_to};
use super::server::{Server, hooks_file, output_in};
use super::upstream::{Upstream, text_chunks};

const KEY: &str = "sk-upstream-4711";

/// A server whose upstream gets a key.
fn keyed(upstream: &Upstream) -> Server {
    let server = Server::run(&["serve", "--upstream", &upstream.url()], &[("SPARKGAP_UPSTREAM_KEY", KEY)]);
    server.wait_for("upstream default: ");
    server
}

#[test]
fn a_key_that_the_upstream_repeats_reaches_neither_client_nor_log() {
    let upstream = Upstream::start();
    let server = keyed(&upstream);
    let words = format!("Incorrect API key provided: {KEY}");
    // The client's limit on the server's words falls into the key.
    let cut = format!("{} {KEY}", "x".repeat(2048 - 12));
    for (status, body, told) in [
        (400, json!({"error": {"message": words}}), "Incorrect API key provided: ***"),
        (401, json!({"error": {"message": words}}), "the upstream rejected the gateway's credentials"),
        (403, json!({"message": words}), "the upstream rejected the gateway's credentials"),
        (404, json!({"detail": {"key": KEY}}), r#"{"key":"***"}"#),
        (422, json!({"error": cut}), "xxx ***"),
        (429, json!({"error": words}), "Incorrect API key provided: ***"),
        (500, json!({"detail": format!("litellm: key={KEY}")}), "litellm: key=***"),
    ] {
        upstream.next_answer(status, &body.to_string());
        let answer = server.connect().post(&hello());
        let (_, message) = answer.error();
        assert!(message.contains(told), "{status}: {message}");
        assert!(!answer.text().contains("sk-ups"), "{}", answer.text());
    }
    // An error in a stream, before and after the first piece of the answer.
    for pieces in [0, 1] {
        let words = words.clone();
        upstream.next(move |call| {
            call.stream_head();
            text_chunks("Hello").iter().take(2 * pieces).for_each(|chunk| call.chunk(chunk));
            call.piece(&format!("data: {}\n\n", json!({"error": {"message": words, "code": 400}})));
            call.end()
        });
        let answer = server.connect().post(&hello_stream());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("provided: ***") && !text.contains(KEY), "{text}");
    }
    let log = server.terminate_and_log();
    assert!(!log.contains("sk-ups") && log.contains("litellm: key=***"), "{log}");
}

/// A name that commands a terminal, and that looks like a line of its own.
const FORGED: &str = "m\u{1b}]0;owned\u{7}\u{9b}2J\r\nok    key   forged\u{202e}";

/// True if the text has nothing but whole lines, and no line is the forged one.
fn is_plain(text: &str) -> bool {
    let commands = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    !text.contains(commands) && !text.lines().any(|line| line.starts_with("ok    key"))
}

#[test]
fn words_of_a_server_command_no_terminal() {
    let upstream = Upstream::start();
    let listing =
        json!({"object": "list", "data": [{"id": FORGED, "owned_by": "vllm", "max_model_len": 131_072}]});
    upstream.set_page("/v1/models", 200, &listing.to_string());
    let refuse = |_: usize| {
        let words = json!({"error": {"message": format!("{FORGED} {KEY}")}});
        upstream.next_answer(400, &words.to_string());
    };
    (0..6).for_each(refuse);
    let environment = [("SPARKGAP_UPSTREAM_KEY", KEY)];
    for command in
        [&["doctor", "--upstream", &upstream.url()][..], &["doctor", "--json", "--upstream", &upstream.url()]]
    {
        let (_, stdout, stderr) = output_in(command, &environment);
        assert!(is_plain(&stdout) && is_plain(&stderr), "{stdout:?}\n{stderr:?}");
        assert!(!stdout.contains(KEY) && !stderr.contains(KEY), "{stdout}\n{stderr}");
        assert!(stdout.contains("owned"), "{stdout}");
    }
    let server = keyed(&upstream);
    let base = format!("http://{}", server.address);
    (0..20).for_each(refuse);
    for command in [
        &["bench", "--base-url", &base, "--upstream", &upstream.url(), "--rounds", "1"][..],
        &["env", "--remote", &base],
        &["env", "--json", "--remote", &base],
    ] {
        let (_, stdout, stderr) = output_in(command, &environment);
        assert!(is_plain(&stdout) && is_plain(&stderr), "{command:?} {stdout:?}\n{stderr:?}");
        assert!(!stdout.contains(KEY) && !stderr.contains(KEY), "{stdout}\n{stderr}");
    }
    let lua = format!(
        "return {{ api = 1, upstreams = {{ spark = {{ url = 'http://127.0.0.1:9/v1', model = {} }} }} }}",
        Value::from("m\u{202e}x")
    );
    let (_, stdout, _) = output_in(&["check", "--hooks", &hooks_file("forged-model", &lua)], &[]);
    assert!(is_plain(&stdout) && stdout.contains("m\\u{202e}x"), "{stdout:?}");
    assert!(is_plain(&server.terminate_and_log()));
}

#[test]
fn no_request_writes_a_long_line() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let long = "x".repeat(200_000);
    let mut forced = hello();
    forced["tool_choice"] = json!({"type": "tool", "name": long});
    let mut open = hello();
    open["messages"] = json!([
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": long, "name": "f", "input": {}}]},
    ]);
    let mut kind = hello();
    kind["messages"][0]["content"] = json!([{"type": long}, {"type": "text", "text": "hi"}]);
    for path in ["/v1/messages/count_tokens", "/v1/messages"] {
        for body in [&forced, &open, &kind] {
            server.connect().ask(&post_to(path, body));
        }
    }
    let path = "x".repeat(60_000);
    let answer = server.connect().ask(format!("GET /{path} HTTP/1.1\r\n\r\n").as_bytes());
    assert!(answer.status == 404 && answer.body.len() < 1024, "{}", answer.body.len());
    let log = server.terminate_and_log();
    assert!(log.contains("Not found: GET /xxx"), "{log}");
    let longest = log.lines().map(str::len).max().unwrap();
    assert!(longest < 1500, "{longest}");
}

#[test]
fn refused_requests_are_counted_where_their_lines_would_be_too_many() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    let mut count = 0;
    // The lines of one second are few, however many requests it has.
    while !server.log().contains("more requests of 127.0.0.1 were refused") {
        assert_eq!(client.ask(b"GET /nothing HTTP/1.1\r\n\r\n").status, 404);
        count += 1;
    }
    // The request after many refused ones has its line.
    server.connect().post(&hello()).message();
    server.wait_for(" -> default/");
    let log = server.terminate_and_log();
    let written = log.matches("Not found: GET /nothing").count();
    let counted = log.lines().filter_map(|line| {
        let (before, _) = line.split_once(" more requests of 127.0.0.1 were refused")?;
        before.rsplit(' ').next()?.parse::<usize>().ok()
    });
    assert_eq!(written + counted.sum::<usize>(), count, "{log}");
}

#[test]
fn a_stderr_that_nobody_reads_stops_nothing() {
    let upstream = Upstream::start();
    let lua =
        r#"return { api = 1, on_request = function() for _ = 1, 300 do log.info(("x"):rep(4000)) end end }"#;
    let hooks = hooks_file("talkative", lua);
    let mut child = Command::new(env!("CARGO_BIN_EXE_sparkgap"))
        .args(["serve", "--listen", "127.0.0.1:0", "--upstream", &upstream.url(), "--hooks", &hooks])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(" listens on http://") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0);
    }
    let address: SocketAddr = line.split_once("http://").unwrap().1.trim().parse().unwrap();
    let lost =
        || Client::connect(address).ask(b"GET /health HTTP/1.1\r\n\r\n").json()["log_lines_lost"].as_u64();
    // Nobody reads on. Requests are served, and their lines are lost.
    while lost() == Some(0) {
        Client::connect(address).post(&hello()).message();
    }
    // As soon as somebody reads, the loss is told and later lines are complete.
    let mut read = String::new();
    while !read.contains("log lines were dropped here") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0);
        read.push_str(&line);
    }
    let before = lost();
    Client::connect(address).ask(b"GET /nothing HTTP/1.1\r\n\r\n");
    while !line.contains("Not found: GET /nothing") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0);
    }
    assert_eq!(lost(), before);
    // Nobody reads again, and the signal is heard.
    while lost() == before {
        Client::connect(address).post(&hello()).message();
    }
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let _ = stderr.read_to_string(&mut read);
}

#[test]
fn the_log_is_complete_at_the_end() {
    let upstream = Upstream::start();
    let lua = r#"return { api = 1, on_request = function(req) for i = 1, 10 do log.info(req.model .. " " .. i .. " " .. ("x"):rep(4000)) end end }"#;
    let server = Server::start_with(&upstream, &["--hooks", &hooks_file("last-lines", lua)]);
    // As many lines as hooks may log in a second.
    for request in 0..10 {
        let mut body = hello();
        body["model"] = format!("of-{request}").into();
        server.connect().post(&body).message();
    }
    let log = server.terminate_and_log();
    for (request, i) in (0..10).flat_map(|request| (1..=10).map(move |i| (request, i))) {
        let line = format!("hook: of-{request} {i} {}\n", "x".repeat(4000));
        assert!(log.contains(&line), "of-{request} {i}");
    }
    // The thread that heard the signal may write its own line last.
    let last: Vec<&str> = log.lines().rev().take(2).collect();
    assert!(last.iter().any(|line| line.ends_with("INFO  stopped")), "{last:?}");
}

#[test]
fn a_trace_has_the_whole_body() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--log-level", "trace"]);
    let mut body = hello();
    body["messages"][0]["content"] = "y".repeat(100_000).into();
    server.connect().ask(&post(body.to_string().as_bytes())).message();
    let log = server.terminate_and_log();
    assert!(log.contains(&"y".repeat(100_000)), "{}", log.len());
}

#[test]
fn hooks_that_log_in_a_loop_do_not_fill_the_log() {
    let upstream = Upstream::start();
    let lua = r#"return { api = 1, on_request = function() for i = 1, 150 do print("line", i) end end }"#;
    let server = Server::start_with(&upstream, &["--hooks", &hooks_file("loop-of-lines", lua)]);
    server.connect().post(&hello()).message();
    server.connect().post(&hello()).message();
    let log = server.terminate_and_log();
    let written = log.matches("hook: line ").count();
    let left_out = log.lines().filter_map(|line| {
        line.split_once("hook: ")?.1.split_once(" more lines were left out")?.0.parse::<usize>().ok()
    });
    assert_eq!(written + left_out.sum::<usize>(), 300, "{log}");
    // Up to twice as many, since on a busy machine the requests may be in two different seconds.
    assert!((100..=200).contains(&written), "{log}");
}

#[test]
fn a_trace_has_no_key_of_the_upstream() {
    const KEY: &str = "sk-live-9f8e7d6c5b4a";
    let upstream = Upstream::start();
    let arguments = ["serve", "--upstream", &upstream.url(), "--log-level", "trace"];
    let server = Server::run(&arguments, &[("SPARKGAP_UPSTREAM_KEY", KEY)]);
    server.wait_for("upstream default: ");
    server.connect().post(&hello()).message();
    let log = server.terminate_and_log();
    assert!(log.contains("to the upstream") || log.contains("TRACE"), "{log}");
    // A dump in lines of sixteen bytes would have it in pieces.
    assert!(!log.contains(KEY) && !log.contains("sk-live"), "{log}");
}
