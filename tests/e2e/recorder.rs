//! The recorder: what it keeps, what it never keeps, and that a recorded answer is translated to the same bytes again.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client::{hello, hello_stream, post, post_with};
use super::server::{Server, hooks_file, output};
use super::upstream::{Gate, Then, Upstream, text_chunks};

/// A key of the form that no pattern knows.
pub(crate) const CANARY: &str = "canary.4711/of+a=client";

pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("recorder-{name}"));
    let _ = fs::remove_dir_all(&folder);
    folder
}

pub(crate) fn start(upstream: &Upstream, folder: &Path, more: &[&str]) -> Server {
    Server::start_with(upstream, &[&["--state", folder.to_str().unwrap()][..], more].concat())
}

/// Runs a command on the folder.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    output(&[arguments, &["--state", folder.to_str().unwrap()]].concat())
}

/// The rows of all requests.
pub(crate) fn rows(folder: &Path) -> Vec<Value> {
    let (code, stdout, stderr) = run(folder, &["requests", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Translates all recorded answers again, and returns their number.
fn replay_all(folder: &Path) -> usize {
    let recorded: Vec<Value> = rows(folder).into_iter().filter(|row| row["recorded"] == true).collect();
    for row in &recorded {
        let (code, stdout, stderr) =
            run(folder, &["replay", row["request_id"].as_str().unwrap(), "--offline"]);
        assert!(code == Some(0) && stdout.contains("the same "), "{row}\n{stdout}{stderr}");
    }
    recorded.len()
}

#[test]
fn failures_are_replayed_to_the_same_bytes() {
    let (upstream, folder) = (Upstream::start(), folder("failures"));
    let server = start(&upstream, &folder, &["--record", "all"]);
    let refusal =
        |message: &str| json!({"error": {"message": message, "type": "BadRequestError", "code": 400}});
    let mut sent = 0;
    for body in [hello(), hello_stream()] {
        for script in 0..8 {
            match script {
                0 => upstream.next_answer(400, &refusal("temperature must be at most 2").to_string()),
                1 => upstream.next_answer(400, &refusal("This model's maximum context length is 8192 tokens. However, your prompt contains 9000 tokens.").to_string()),
                2 => upstream.next_answer(500, "<html>broken</html>"),
                3 => upstream.next_answer(200, &refusal("engine died").to_string()),
                4 => upstream.next(|call| {
                    call.stream_head();
                    call.chunk(&text_chunks("Half")[0]);
                    call.close();
                    Then::Close
                }),
                5 => upstream.next(|call| {
                    call.stream_head();
                    call.chunk(&text_chunks("Half")[0]);
                    call.piece("data: {\"error\":{\"message\":\"CUDA out of memory\",\"code\":500}}\n\n");
                    call.end()
                }),
                6 => upstream.next(|call| {
                    call.stream_head();
                    text_chunks("No mark at the end").iter().take(1).for_each(|chunk| call.chunk(chunk));
                    call.end()
                }),
                _ => upstream.next(|call| {
                    call.stream_head();
                    call.piece("data: {\"choi");
                    call.piece("ces\":[{\"index\":0,\"delta\":{\"content\":\"S\u{fc}\"}}]}\n\nda");
                    call.piece("ta: rubbish\n\n");
                    text_chunks("x").iter().for_each(|chunk| call.chunk(chunk));
                    call.done()
                }),
            }
            server.connect().post(&body);
            sent += 1;
        }
    }
    assert!(server.terminate());
    assert_eq!(replay_all(&folder), sent);
    assert!(rows(&folder).iter().filter(|row| row["status"] != 200).count() >= 8);
}

/// The answers of the golden cases, each as a real exchange.
#[test]
fn golden_answers_are_replayed_to_the_same_bytes() {
    let (upstream, folder) = (Upstream::start(), folder("golden"));
    let server = start(&upstream, &folder, &["--record", "all", "--open-after", "0", "--ping-every", "0"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let mut asked = 0;
    for case in cases {
        let (Ok(body), Ok(answer)) =
            (fs::read(case.join("messages.json")), fs::read_to_string(case.join("upstream.sse")))
        else {
            continue;
        };
        // Every third one is enough here.
        asked += 1;
        if asked % 3 != 0 {
            continue;
        }
        let before = upstream.seen().len();
        upstream.next(move |call| {
            call.stream_head();
            // A piece of one byte would take too long; some odd size meets every state.
            let mut rest = answer.as_str();
            while !rest.is_empty() {
                let end = (97..=rest.len()).find(|end| rest.is_char_boundary(*end)).unwrap_or(rest.len());
                call.piece(&rest[..end]);
                rest = &rest[end..];
            }
            call.end()
        });
        server.connect().ask(&post(&body));
        if upstream.seen().len() == before {
            // Refused before the upstream was asked: the script must not answer the next one.
            server.connect().post(&hello());
        }
    }
    assert!(server.terminate());
    let mut replayed = 0;
    for row in rows(&folder).iter().filter(|row| row["upstream"] != Value::Null) {
        let id = row["request_id"].as_str().unwrap();
        let (code, stdout, stderr) = run(&folder, &["replay", id, "--offline"]);
        let is_refused = stderr.contains("there is nothing to translate");
        assert!(code == Some(0) || is_refused, "{row}\n{stdout}{stderr}");
        replayed += usize::from(!is_refused);
    }
    assert!(replayed > 50, "{replayed}");
}

#[test]
fn a_key_stands_nowhere() {
    let (upstream, folder) = (Upstream::start(), folder("canary"));
    let keys = folder.with_extension("keys");
    fs::write(&keys, format!("{CANARY} anna\n")).unwrap();
    let own = folder.with_extension("upstream-key");
    fs::write(&own, "upstream-canary-4711\n").unwrap();
    let server = start(
        &upstream,
        &folder,
        &[
            "--record",
            "all",
            "--api-key-file",
            keys.to_str().unwrap(),
            "--upstream-key-file",
            own.to_str().unwrap(),
        ],
    );
    let mut body = hello_stream();
    body["messages"] = json!([
        {"role": "user", "content": format!("my key is {CANARY}, and sk-live-0123456789abcdefghij")},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": format!("export K={CANARY}"), "password": "hunter2-4711"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": format!("ok {CANARY}")}]},
    ]);
    body["system"] = format!("the key {CANARY}").into();
    body["tools"] = json!([{"name": "Bash", "description": CANARY, "input_schema": {"type": "object"}}]);
    body["metadata"] = json!({"user_id": CANARY});
    let headers = format!(
        "x-api-key: {CANARY}\r\nuser-agent: test {CANARY}\r\ncookie: a={CANARY}\r\nx-secret-of-mine: {CANARY}\r\nanthropic-beta: {CANARY}\r\nx-claude-code-session-id: s-1\r\n"
    );
    upstream.next_chunks(text_chunks(&format!("You said {CANARY} and upstream-canary-4711")));
    let bytes = post_with(&headers, body.to_string().as_bytes());
    assert_eq!(server.connect().ask(&bytes).status, 200);
    upstream.next_answer(
        400,
        &json!({"error": {"message": format!("bad key {CANARY} upstream-canary-4711")}}).to_string(),
    );
    server.connect().ask(&bytes);
    let log = server.terminate_and_log();
    let shown: Vec<String> = [&["last"][..], &["last", "--har"], &["last", "--curl"], &["last", "--diff"]]
        .iter()
        .map(|forms| run(&folder, &[&["show"], *forms].concat()).1)
        .collect();
    assert!(shown.iter().all(|text| !text.is_empty()), "{shown:?}");
    let mut files = vec![log, shown.concat()];
    for entry in fs::read_dir(&folder).unwrap() {
        files.push(String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap()).into_owned());
    }
    for secret in [CANARY, "upstream-canary-4711", "hunter2-4711", "sk-live-0123456789abcdefghij"] {
        for text in &files {
            if let Some(at) = text.find(secret) {
                panic!("{secret} in: {}", &text[at.saturating_sub(80)..at]);
            }
        }
    }
    assert!(files.iter().any(|text| text.contains("my key is *****")), "the recording itself is there");
    // The error that repeats the upstream's key differs: the server made it shorter.
    let id = rows(&folder).iter().find(|row| row["status"] == 200).unwrap()["request_id"].to_string();
    let (code, stdout, stderr) = run(&folder, &["replay", id.trim_matches('"'), "--offline"]);
    assert!(code == Some(0), "{stdout}{stderr}");
}

#[test]
fn only_failures_are_kept_unless_a_hook_says_otherwise() {
    let (upstream, folder) = (Upstream::start(), folder("errors"));
    let hooks = hooks_file(
        "recorder",
        r#"return { on_request = function(req)
            local text = req.body.messages[1].content
            if text == "keep" then req.body.temperature = 0.5 return { record = true } end
            if text == "never" then return { record = false } end
            if text == "wrong" then return { record = 1 } end
        end }"#,
    );
    for (mode, kept) in [("errors", 2), ("off", 1)] {
        let folder = folder.with_extension(mode);
        let _ = fs::remove_dir_all(&folder);
        let server = start(&upstream, &folder, &["--record", mode, "--hooks", &hooks]);
        for text in ["Hi", "keep", "never", "wrong", "Hi"] {
            let mut body = hello();
            body["messages"][0]["content"] = text.into();
            server.connect().post(&body).message();
        }
        for text in ["Hi", "never"] {
            upstream.next_answer(400, r#"{"error":{"message":"no"}}"#);
            let mut body = hello();
            body["messages"][0]["content"] = text.into();
            assert_eq!(server.connect().post(&body).status, 400);
        }
        assert!(server.terminate());
        assert_eq!(replay_all(&folder), kept, "{mode}");
        let (_, text, _) = run(&folder, &["requests"]);
        assert_eq!(text.matches(" recorded").count(), kept, "{text}");
    }
}

#[test]
fn images_are_cut_and_a_replay_asks_the_server_again() {
    let (upstream, folder) = (Upstream::start(), folder("images"));
    let server = start(&upstream, &folder, &["--record", "all"]);
    let mut body = hello();
    let data = "iVBORw0KGgoAAAANSUhEUgAA".repeat(200);
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}});
    body["messages"][0]["content"] = json!([image, {"type": "text", "text": "Hi"}]);
    server.connect().post(&body).message();
    assert!(server.terminate());
    let (_, text, _) = run(&folder, &["show", "last"]);
    assert!(text.contains("cut:4800:bytes") && !text.contains(&data), "{text}");
    assert_eq!(replay_all(&folder), 1);
    let (code, stdout, stderr) = run(&folder, &["replay", "last"]);
    assert!(code == Some(0) && stdout.contains("the answers are the same"), "{stdout}{stderr}");
    upstream.next_chunks(text_chunks("Other"));
    let (code, stdout, _) = run(&folder, &["replay", "last", "--to", &upstream.url()]);
    assert!(code == Some(1) && stdout.contains("[text] Other"), "{stdout}");
    assert_eq!(run(&folder, &["replay", "last", "--to", "http://127.0.0.1:9/v1"]).0, Some(1));
}

#[test]
fn mistakes_are_told() {
    let (upstream, folder) = (Upstream::start(), folder("mistakes"));
    let (code, _, stderr) = output(&["serve", "--upstream", &upstream.url(), "--record", "all"]);
    assert!(code == Some(78) && stderr.contains("add --state DIR"), "{stderr}");
    let (code, _, stderr) = output(&["serve", "--record", "some"]);
    assert!(code == Some(64) && stderr.contains("'some' is not off, errors or all"), "{stderr}");
    let server = start(&upstream, &folder, &[]);
    server.connect().post(&hello()).message();
    assert!(server.terminate());
    for (arguments, words) in [
        (&["show", "last"][..], "serve --record errors"),
        (&["replay", "req_1", "--offline"], "there is no recording of this request"),
        (&["show", "last", "--har", "--curl"], "exclude each other"),
        (&["replay", "last", "--offline", "--to", "http://x/v1"], "--offline asks no server"),
    ] {
        let (code, _, stderr) = run(&folder, arguments);
        assert!(code == Some(1) && stderr.contains(words), "{stderr}");
    }
}

/// The oldest recordings go, and the newest one stays.
#[test]
fn recordings_have_a_limit() {
    let (upstream, folder) = (Upstream::start(), folder("limit"));
    let server = start(&upstream, &folder, &["--record", "all", "--record-size", "16M"]);
    let mut body = hello();
    body["messages"][0]["content"] = "lorem ipsum ".repeat(250_000).into();
    for _ in 0..5 {
        upstream.next_chunks(text_chunks("Hi"));
        server.connect().post(&body);
    }
    assert!(server.terminate());
    let kept: Vec<bool> = rows(&folder).iter().map(|row| row["recorded"] == true).collect();
    assert_eq!(kept.len(), 5);
    assert!(kept[4] && !kept[0], "{kept:?}");
    let size = fs::metadata(folder.join("sparkgap.db")).unwrap().len();
    assert!(size < 40 << 20, "{size}");
}

/// Pings in silence, a client that leaves, and an answer that goes on at another upstream.
#[test]
fn odd_exchanges_are_replayed_to_the_same_bytes() {
    let (first, second, folder) = (Upstream::start(), Upstream::start(), folder("odd"));
    let more = ["--upstream", &second.url(), "--record", "all", "--open-after", "0", "--ping-every", "1"]
        .map(str::to_owned);
    let server = start(&first, &folder, &more.each_ref().map(String::as_str));
    let reasoning = |text: &str| super::upstream::delta(json!({"reasoning_content": text}));
    for upstream in [&first, &second] {
        let gate = Gate::default();
        let waits = gate.clone();
        upstream.next(move |call| {
            call.stream_head();
            call.chunk(&reasoning("Let me"));
            waits.wait();
            text_chunks("Hi there").iter().for_each(|chunk| call.chunk(chunk));
            call.done()
        });
        // Whichever box it goes to, it breaks off there after some reasoning, if nothing is left in its script.
        let mut body = hello_stream();
        body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
        body["max_tokens"] = 2000.into();
        let mut client = server.connect();
        client.send(&post(body.to_string().as_bytes()));
        client.head();
        gate.open();
        while client.piece().is_some() {}
        for broken in [&first, &second] {
            broken.next(move |call| {
                call.stream_head();
                call.chunk(&super::upstream::delta(json!({"reasoning_content": "Hm"})));
                call.close();
                Then::Close
            });
        }
        client.send(&post(body.to_string().as_bytes()));
        client.head();
        while client.piece().is_some_and(|piece| !piece.is_empty()) {}
    }
    // A client that leaves in the middle.
    let gate = Gate::default();
    for upstream in [&first, &second] {
        let waits = gate.clone();
        upstream.next(move |call| {
            call.stream_head();
            text_chunks("Half of it").iter().take(2).for_each(|chunk| call.chunk(chunk));
            waits.wait();
            Then::Close
        });
    }
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    client.head();
    client.read_until("Half");
    drop(client);
    server.wait_until(|health| health["cancelled"]["stream"] == 1);
    gate.open();
    assert!(server.terminate());
    assert!(replay_all(&folder) >= 5);
}

#[test]
fn a_hook_without_a_folder_is_told_so_once() {
    let upstream = Upstream::start();
    let hooks =
        hooks_file("recorder-nowhere", "return { on_request = function(req) return { record = true } end }");
    let server = Server::start_with(&upstream, &["--hooks", &hooks]);
    for _ in 0..2 {
        server.connect().post(&hello()).message();
    }
    let log = server.terminate_and_log();
    assert_eq!(log.matches("no folder to write to: add --state DIR").count(), 1, "{log}");
}
