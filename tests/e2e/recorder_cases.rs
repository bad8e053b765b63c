//! A recorded request becomes a golden case, and recordings outlive a process that is killed and a disk that is full.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use super::HANG;
use super::client::{hello, hello_stream, post_to};
use super::cuts::{self, PlacesMax};
use super::golden::Case;
use super::recorder::{folder, rows, run, start};
use super::server::{Server, hooks_file};
use super::upstream::{Gate, Then, Upstream, delta, text_chunks};

/// Saves each recorded request as a case, and runs the golden runner over it. Returns the notes of `replay`.
fn save_all(folder: &Path) -> Vec<(String, String)> {
    let cases = folder.with_extension("cases");
    let _ = fs::remove_dir_all(&cases);
    let mut notes = Vec::new();
    for (number, row) in rows(folder).iter().filter(|row| row["recorded"] == true).enumerate() {
        let case = cases.join(format!("case_{number}"));
        let arguments =
            ["replay", row["request_id"].as_str().unwrap(), "--offline", "--save", case.to_str().unwrap()];
        let (code, stdout, stderr) = run(folder, &arguments);
        assert_eq!(code, Some(0), "{row} {stderr}");
        let written: Vec<&str> = stdout.lines().collect();
        assert!(written.iter().all(|path| Path::new(path).is_file()), "{stdout}");
        assert_eq!(written.len(), fs::read_dir(&case).unwrap().count(), "{stdout}");
        let read = Case::read(case.clone());
        let wrong = read.check(false);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        if let Ok((_, Some(exchange))) = read.request() {
            cuts::cut(&read.name, &exchange, PlacesMax(50));
            cuts::truncate(&read.name, &exchange, PlacesMax(50));
        }
        // A second time nothing is replaced.
        let about = fs::read(case.join("about.txt")).unwrap();
        let (code, _, again) = run(folder, &arguments);
        assert!(code == Some(1) && again.contains("exists; name a new folder"), "{again}");
        assert_eq!(fs::read(case.join("about.txt")).unwrap(), about);
        notes.push((row["error"].to_string(), stderr));
    }
    notes
}

#[test]
fn a_recorded_request_becomes_a_golden_case() {
    let (upstream, folder) = (Upstream::start(), folder("cases"));
    let server = start(&upstream, &folder, &["--record", "all", "--open-after", "0", "--ping-every", "1"]);
    let mut thinking = hello_stream();
    thinking["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    thinking["max_tokens"] = 2000.into();
    thinking["tools"] = json!([{"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}]);
    // A good answer, with silences and a call that was written as text.
    for body in [&hello(), &thinking] {
        let gate = Gate::default();
        let waits = gate.clone();
        upstream.next(move |call| {
            waits.wait();
            call.stream_head();
            call.chunk(&delta(json!({"reasoning_content": "Let me see"})));
            text_chunks("Done.<tool_call>{\"name\":\"Bash\",\"arguments\":{\"command\":\"ls\"}}</tool_call>")
                .iter()
                .for_each(|chunk| call.chunk(chunk));
            call.done()
        });
        let mut client = server.connect();
        client.send(&super::client::post(body.to_string().as_bytes()));
        if body["stream"] == true {
            client.read_until_head_and("message_start");
            gate.open();
            while client.piece().is_some() {}
        } else {
            gate.open();
            client.receive();
        }
    }
    assert!(server.terminate());
    // Nobody opens an answer in silence here, since a case has no silence before a refusal.
    let server = start(&upstream, &folder, &["--record", "all"]);
    // Refusals, errors in a stream, and answers that break off.
    let error = |message: &str| json!({"error": {"message": message, "code": 400}}).to_string();
    for body in [hello(), hello_stream()] {
        upstream.next_answer(400, &error("temperature must be at most 2"));
        server.connect().post(&body);
        upstream.next_answer(500, "<html>broken</html>");
        server.connect().post(&body);
        let died = error("engine died");
        upstream.next(move |call| {
            call.stream_head();
            call.chunk(&text_chunks("Half")[0]);
            call.piece(&format!("data: {died}\n\n"));
            call.end()
        });
        server.connect().post(&body);
        upstream.next(|call| {
            call.stream_head();
            call.chunk(&text_chunks("Half of it")[0]);
            call.chunk(&text_chunks("Half of it")[1]);
            call.close();
            Then::Close
        });
        server.connect().post(&body);
        // Refused before an upstream is asked.
        let mut wrong = body.clone();
        wrong["messages"][0]["role"] = "wizard".into();
        server.connect().post(&wrong);
    }
    assert!(server.terminate());
    let notes = save_all(&folder);
    assert_eq!(notes.len(), 12);
    for (error, note) in &notes {
        // Only a lost connection cannot stand in a case.
        let is_other = note.contains("the expected answer is not the one");
        assert!(!is_other || error.contains("connection") || error.contains("ended"), "{error} {note}");
        assert!(note.contains("look at it before you pass it on"), "{note}");
    }
}

#[test]
fn only_what_was_translated_becomes_a_case() {
    let (upstream, folder) = (Upstream::start(), folder("no-cases"));
    let hooks = hooks_file(
        "recorder-no-cases",
        "return { on_request = function(req) return { reject = 403, message = 'no' } end }",
    );
    let server = start(&upstream, &folder, &["--record", "all", "--hooks", &hooks]);
    server.connect().post(&hello());
    assert!(server.terminate());
    let new = folder.join("case");
    let new = new.to_str().unwrap();
    for (arguments, words) in [
        (&["replay", "last", "--offline", "--save", new][..], "a limit, a hook or the route has refused it"),
        (&["replay", "last", "--save", new], "add --offline"),
        (&["replay", "nothing", "--offline", "--save", new], "there is no recording"),
    ] {
        let (code, _, stderr) = run(&folder, arguments);
        assert!(code == Some(1) && stderr.contains(words), "{stderr}");
        assert!(!Path::new(new).exists());
    }
}

/// A recording is whole or absent after a kill, whatever the writer was doing.
#[test]
fn recordings_are_whole_or_absent_after_a_kill() {
    let (upstream, folder) = (Upstream::start(), folder("killed"));
    let mut kept = 0;
    for round in 0..10 {
        let mut server = start(&upstream, &folder, &["--record", "all"]);
        let mut body = hello_stream();
        // Some hundred pages, so that the kill may come between two of them.
        body["messages"][0]["content"] = format!("begin {} end", "lorem ipsum ".repeat(60_000)).into();
        let mut client = server.connect();
        for _ in 0..3 {
            client.post(&body);
            client.ask(&post_to(
                "/v1/chat/completions",
                &json!({"model": "m", "messages": [], "x": "y".repeat(500_000)}),
            ));
        }
        if round % 2 == 0 {
            // A recording that a command has shown is not lost by the kill that follows.
            let until = Instant::now() + HANG;
            while recorded(&folder) < kept + 1 {
                assert!(Instant::now() < until, "no recording");
            }
        }
        server.signal("KILL");
        server.ended();
        assert!(!server.log().contains("corrupt"), "{}", server.log());
        let found = recorded(&folder);
        assert!(found >= kept + usize::from(round % 2 == 0), "{found} of {kept}");
        kept = found;
        for row in rows(&folder).iter().filter(|row| row["recorded"] == true) {
            let id = row["request_id"].as_str().unwrap();
            let (code, stdout, stderr) = run(&folder, &["replay", id, "--offline"]);
            assert!(code == Some(0) && stdout.contains("the same ") && stderr.is_empty(), "{stdout}{stderr}");
        }
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(!name.to_string_lossy().contains("corrupt"), "{name:?}");
        }
    }
    assert!(kept >= 5, "{kept}");
}

fn recorded(folder: &Path) -> usize {
    let (_, stdout, _) = run(folder, &["requests"]);
    stdout.matches(" recorded").count()
}

/// A limit on the size of files is a disk that is full: requests go on, and the recordings that were written stay whole.
#[test]
fn a_full_disk_while_recording_stops_nothing() {
    let (upstream, folder) = (Upstream::start(), folder("full"));
    let limited = "trap '' XFSZ; ulimit -f 4000 && exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_sparkgap"), "serve", "--upstream", &upstream.url()]);
    command.args(["--listen", "127.0.0.1:0", "--state", folder.to_str().unwrap(), "--record", "all"]);
    let server = Server::spawn(command.env_clear().stdin(Stdio::null()));
    server.wait_for("upstream default: ");
    let mut body = hello();
    body["messages"][0]["content"] = "lorem ipsum ".repeat(5_000).into();
    let mut client = server.connect();
    let until = Instant::now() + HANG;
    while !server.log().contains("going on without history") {
        client.post(&body).message();
        assert!(Instant::now() < until, "{}", server.log());
    }
    client.post(&body).message();
    assert!(server.terminate());
    let kept: Vec<_> = rows(&folder).into_iter().filter(|row| row["recorded"] == true).collect();
    assert!(!kept.is_empty());
    for row in &kept {
        let (code, stdout, stderr) =
            run(&folder, &["replay", row["request_id"].as_str().unwrap(), "--offline"]);
        assert!(code == Some(0), "{stdout}{stderr}");
    }
}
