//! `sparkgap exam`: against the demo, a scripted model, and servers that refuse.

use serde_json::{Value, json};

use super::server::output;
use super::upstream::{Upstream, closed, delta, finish, usage};

fn report(arguments: &[&str]) -> Value {
    let (code, out, err) = output(&[&["exam", "--json"], arguments].concat());
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str::<Value>(&out).unwrap()[0].take()
}

fn count(report: &Value, verdict: &str) -> usize {
    report["tasks"].as_array().unwrap().iter().filter(|task| task["verdict"] == verdict).count()
}

#[test]
fn each_task_is_passed_repaired_or_failed() {
    let upstream = Upstream::start();
    // The first task gets its call as text, the second one a call whose server needs no repair, the others `Hello.`
    let text = "<tool_call>\n{\"name\": \"Read\", \"arguments\": {\"file_path\": \"/srv/app/main.rs\"}}\n</tool_call>";
    upstream.next_chunks(vec![delta(json!({"content": text})), finish("stop"), usage(10, 20)]);
    let function = json!({"name": "Bash", "arguments": "{\"command\": \"git status --short\"}"});
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": function});
    upstream.next_chunks(vec![delta(json!({"tool_calls": [call]})), finish("tool_calls"), usage(10, 20)]);
    let told = report(&["--upstream", &upstream.url()]);
    let task = |name: &str| {
        told["tasks"].as_array().unwrap().iter().find(|task| task["task"] == name).unwrap().clone()
    };
    assert_eq!(
        (&task("read")["verdict"], &task("command")["verdict"]),
        (&json!("repaired"), &json!("passed"))
    );
    assert!(task("read")["why"].as_str().unwrap().contains("in the form 'hermes'"), "{told}");
    assert_eq!(task("greeting")["verdict"], "passed");
    assert!(
        task("todos")["why"].as_str().unwrap().contains("expected a call, got the text \"Hello.\""),
        "{told}"
    );
    assert_eq!((count(&told, "passed"), count(&told, "repaired"), count(&told, "failed")), (2, 1, 27));
    assert!(told["advice"][0].as_str().unwrap().contains("--tool-call-parser hermes"), "{told}");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 30);
    assert_eq!(seen[0].body["tools"].as_array().unwrap().len(), 24);
    assert_eq!(seen[0].body["model"], told["model"]);
    assert!(seen.iter().all(|seen| seen.body["stream"] == true));
}

#[test]
fn the_demo_takes_the_exam_and_the_table_has_all_kinds() {
    let (code, out, err) = output(&["exam", "--upstream", "demo"]);
    assert_eq!(code, Some(0), "{err}");
    for kind in ["one call", "parallel calls", "long history", "structured output", "stop", "all"] {
        assert!(out.lines().any(|line| line.trim_start().starts_with(kind)), "{kind}: {out}");
    }
    assert!(out.contains("failed  two-reads: "), "{out}");
}

#[test]
fn errors_of_the_server_are_failures_of_tasks_and_a_server_that_is_out_ends_the_exam() {
    let upstream = Upstream::start();
    (0..30).for_each(|_| upstream.next_answer(401, r#"{"error":{"message":"bad key"}}"#));
    let told = report(&["--upstream", &upstream.url()]);
    assert_eq!(count(&told, "failed"), 30);
    assert!(told["tasks"][0]["why"].as_str().unwrap().contains("key"), "{told}");

    let upstream = Upstream::start();
    upstream.next(|call| {
        call.stream_head();
        call.chunk(&delta(json!({"content": "He"})));
        call.close();
        super::upstream::Then::Close
    });
    let told = report(&["--upstream", &upstream.url()]);
    assert_eq!(told["tasks"][0]["verdict"], "failed");

    let (address, _socket) = closed();
    let (code, _, err) = output(&["exam", "--upstream", &format!("http://{address}/v1")]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("upstream "), "{err}");
    let (code, _, err) = output(&["exam"]);
    assert!(code == Some(1) && err.contains("--upstream"), "{err}");
}
