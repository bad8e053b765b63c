//! The state folder: what a restart must not forget, what the commands show of it, and folders that cannot be used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::HANG;
use super::client::{hello, post, post_with};
use super::server::{Server, hooks_file, output, output_in};
use super::upstream::{MODEL, Upstream};

/// The tokens of the prompt that the upstream counts in an answer.
const TOKENS: u64 = 20;

/// An empty folder of this test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("state-{name}"));
    let _ = fs::remove_dir_all(&folder);
    folder
}

/// The lines of a command with `--json`.
fn lines(command: &[&str], folder: &Path) -> Vec<Value> {
    let (code, stdout, stderr) =
        output(&[command, &["--json", "--state", folder.to_str().unwrap()]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asks for the requests until there are so many: the writer may be a moment behind the answer.
fn wait_for_requests(folder: &Path, count: usize) -> Vec<Value> {
    let until = Instant::now() + HANG;
    loop {
        let rows = lines(&["requests"], folder);
        if rows.len() >= count {
            return rows;
        }
        assert!(Instant::now() < until, "{rows:?}");
    }
}

fn start(upstream: &Upstream, folder: &Path) -> Server {
    Server::start_with(upstream, &["--state", folder.to_str().unwrap()])
}

#[test]
fn requests_and_usage_survive_a_restart() {
    let (upstream, folder) = (Upstream::start(), folder("restart"));
    for _ in 0..2 {
        let server = start(&upstream, &folder);
        let body = hello().to_string();
        let session = "x-claude-code-session-id: s-1\r\n";
        assert_eq!(server.connect().ask(&post_with(session, body.as_bytes())).status, 200);
        assert_eq!(server.connect().ask(&post_with("", b"{")).status, 400);
        assert!(server.terminate());
    }
    let rows = lines(&["requests"], &folder);
    // Two connections end in any order.
    let mut statuses: Vec<_> = rows.iter().map(|row| row["status"].as_u64().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 400, 400]);
    let row = rows.iter().find(|row| row["status"] == 200).unwrap();
    assert_eq!((&row["session"], &row["upstream_model"]), (&"s-1".into(), &MODEL.into()));
    assert_eq!((&row["client"], &row["input_tokens"]), (&"127.0.0.1".into(), &TOKENS.into()));
    assert!(row["request_id"].as_str().unwrap().starts_with("req_"), "{row}");
    assert_eq!(lines(&["requests", "--failed"], &folder).len(), 2);
    assert_eq!(lines(&["requests", "--session", "s-1"], &folder).len(), 2);
    assert_eq!(lines(&["requests", "--session", "' OR 1=1 --"], &folder).len(), 0);
    for by in ["client", "model", "day"] {
        let usage = lines(&["usage", "--by", by], &folder);
        assert_eq!((usage.len(), &usage[0]["requests"]), (1, &2.into()), "{by}: {usage:?}");
        assert_eq!(usage[0]["prompt_tokens"], 2 * TOKENS);
    }
    let state = folder.to_str().unwrap();
    let (_, table, _) = output(&["usage", "--state", state]);
    assert!(table.lines().nth(1).unwrap().starts_with("127.0.0.1 "), "{table}");
    let (_, csv, _) = output(&["usage", "--csv", "--state", state]);
    assert!(csv.starts_with("client,requests,") && csv.contains("\n\"127.0.0.1\",2,40,"), "{csv}");
    assert_eq!(output(&["usage", "--csv", "--json", "--state", state]).0, Some(1));
}

#[test]
fn a_price_makes_a_cost() {
    let (upstream, folder) = (Upstream::start(), folder("price"));
    let hooks = hooks_file(
        "state-price",
        r#"return { aliases = { { "claude-*", price = { input = 1000000, output = 0 } }, { "*" } } }"#,
    );
    let server = Server::start_with(&upstream, &["--hooks", &hooks, "--state", folder.to_str().unwrap()]);
    server.connect().post(&hello()).message();
    assert!(server.terminate());
    assert_eq!(lines(&["usage"], &folder)[0]["cost"], format!("{TOKENS}.000000"));
}

#[test]
fn what_hooks_share_survives_a_restart() {
    let (upstream, folder) = (Upstream::start(), folder("shared"));
    let hooks = hooks_file(
        "state-shared",
        r#"return { on_request = function(req) return { respond = "call " .. shared.incr("calls", 1) } end }"#,
    );
    for call in ["call 1", "call 2"] {
        let server = Server::start_with(&upstream, &["--hooks", &hooks, "--state", folder.to_str().unwrap()]);
        let answer = server.connect().post(&hello());
        assert!(answer.text().contains(call), "{}", answer.text());
        assert!(server.terminate());
    }
}

/// A model that was found to read no images, before and after a restart.
#[test]
fn a_repair_survives_a_restart_unless_the_server_lists_another_model() {
    let (upstream, folder) = (Upstream::start(), folder("learned"));
    let image = serde_json::json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}});
    let mut body = hello();
    body["messages"][0]["content"] = serde_json::json!([image, {"type": "text", "text": "Hi"}]);
    let refuse = || {
        let error = serde_json::json!({"error": {"message": format!("{MODEL} is not a multimodal model"), "type": "BadRequestError", "code": 400}});
        upstream.next_answer(400, &error.to_string());
    };
    let asked = |upstream: &Upstream| upstream.seen().len();
    refuse();
    let server = start(&upstream, &folder);
    server.connect().post(&body).message();
    assert_eq!(asked(&upstream), 2, "refused once, then repaired");
    assert!(server.terminate());
    let server = start(&upstream, &folder);
    server.connect().post(&body).message();
    assert_eq!(asked(&upstream), 3, "repaired at once");
    let sent = upstream.seen().pop().unwrap().body.to_string();
    assert!(!sent.contains("image_url"), "{sent}");
    assert!(server.terminate());
    let other = serde_json::json!({"data": [{"id": "other", "object": "model", "owned_by": "vllm", "max_model_len": 8192}]});
    upstream.set_page("/v1/models", 200, &other.to_string());
    let server = start(&upstream, &folder);
    server.connect().post(&body).message();
    let sent = upstream.seen().pop().unwrap().body.to_string();
    assert!(sent.contains("image_url"), "another model is not repaired: {sent}");
    assert!(server.terminate());
}

#[test]
fn a_process_that_is_killed_leaves_a_file_that_opens() {
    let (upstream, folder) = (Upstream::start(), folder("killed"));
    let mut kept = 0;
    for _ in 0..10 {
        let mut server = start(&upstream, &folder);
        for _ in 0..5 {
            server.connect().post(&hello()).message();
        }
        // A row that a command has shown is not lost by the kill that follows.
        kept = wait_for_requests(&folder, kept + 1).len();
        server.signal("KILL");
        server.ended();
        let log = server.log();
        assert!(!log.contains("corrupt"), "{log}");
        let after = lines(&["requests"], &folder).len();
        assert!(after >= kept, "{after} of {kept}");
        kept = after;
    }
}

#[test]
fn a_corrupt_file_is_set_aside() {
    let (upstream, folder) = (Upstream::start(), folder("corrupt"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("sparkgap.db"), "no database").unwrap();
    let server = start(&upstream, &folder);
    server.wait_for("the file is kept as sparkgap.db.corrupt-");
    server.connect().post(&hello()).message();
    assert_eq!(wait_for_requests(&folder, 1).len(), 1);
    assert!(server.terminate());
}

#[test]
fn a_folder_that_cannot_be_used_is_one_line_in_the_log() {
    let upstream = Upstream::start();
    // A file in its place: root may write everywhere, so a mode would not stop the test's user.
    let file = folder("file");
    fs::write(&file, "").unwrap();
    let server = start(&upstream, &file);
    let line = server.wait_for("going on without history");
    assert!(line.contains("ERROR") && line.contains(file.to_str().unwrap()), "{line}");
    for _ in 0..3 {
        server.connect().post(&hello()).message();
    }
    let log = server.terminate_and_log();
    assert_eq!(log.matches("going on without history").count(), 1, "{log}");
    let (code, _, stderr) = output(&["usage", "--state", file.to_str().unwrap()]);
    assert!(code == Some(1) && stderr.contains("--state DIR"), "{stderr}");
    assert_eq!(output_in(&["requests"], &[("STATE_DIRECTORY", file.to_str().unwrap())]).0, Some(1));
}

#[test]
fn a_second_process_goes_on_without_history() {
    let (upstream, folder) = (Upstream::start(), folder("second"));
    let first = start(&upstream, &folder);
    let second = start(&upstream, &folder);
    second.wait_for("another sparkgap uses it");
    second.connect().post(&hello()).message();
    assert!(second.terminate());
    first.connect().post(&hello()).message();
    assert!(first.terminate());
    assert_eq!(lines(&["requests"], &folder).len(), 1);
}

#[test]
fn a_full_disk_stops_nothing() {
    let (upstream, folder) = (Upstream::start(), folder("full"));
    // A limit on the size of files, in blocks of 512 bytes, is a disk that is full.
    let limited = "trap '' XFSZ; ulimit -f 40 && exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_sparkgap"), "serve", "--upstream", &upstream.url()]);
    command.args(["--listen", "127.0.0.1:0", "--state", folder.to_str().unwrap()]);
    let server = Server::spawn(command.env_clear().stdin(Stdio::null()));
    server.wait_for("upstream default: ");
    let mut client = server.connect();
    let until = Instant::now() + HANG;
    while !server.log().contains("going on without history") {
        client.post(&hello()).message();
        assert!(Instant::now() < until, "{}", server.log());
    }
    client.post(&hello()).message();
    assert!(server.terminate());
}

/// A disk that hangs: the lock of the folder is a pipe that nobody reads, so that the writer never gets past it.
#[test]
fn no_request_waits_for_a_disk_that_hangs() {
    let (upstream, folder) = (Upstream::start(), folder("hangs"));
    fs::create_dir_all(&folder).unwrap();
    let pipe = folder.join("lock");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let server = start(&upstream, &folder);
    server.wait_for("the disk does not answer; going on without what was saved there");
    let mut client = server.connect();
    client.post(&hello()).message();
    // More requests than the channel holds. They are refused, since that is faster, and kept all the same.
    for _ in 0..1100 {
        assert_eq!(client.ask(&post(b"{")).status, 400);
    }
    client.post(&hello()).message();
    server.wait_for("the disk is too slow; 1 requests are missing in it");
    assert!(server.terminate(), "it ends all the same");
}

#[test]
fn the_folder_of_the_service_manager_is_used() {
    let (upstream, folder) = (Upstream::start(), folder("manager"));
    let folders = format!("{}:/nowhere", folder.display());
    let server = Server::run(&["serve", "--upstream", &upstream.url()], &[("STATE_DIRECTORY", &folders)]);
    server.wait_for("upstream default: ");
    server.connect().post(&hello()).message();
    assert!(server.terminate());
    assert_eq!(lines(&["requests"], &folder).len(), 1);
}
