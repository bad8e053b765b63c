//! `sparkgap exam`: against the demo, a scripted model, and servers that refuse.

use serde_json::{Value, json};

use super::server::output;
use super::upstream::{Then, Upstream, closed, delta, finish, usage};

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
    let (code, out, err) = output(&["exam", "--json", "--upstream", &upstream.url()]);
    let told = serde_json::from_str::<Value>(&out).unwrap()[0].take();
    assert!(code == Some(1) && err.contains("answered no task"), "{err}");
    assert_eq!((count(&told, "failed"), &told["advice"]), (30, &json!([])));
    assert!(told["tasks"][0]["why"].as_str().unwrap().contains("key"), "{told}");
    (0..30).for_each(|_| upstream.next_answer(401, r#"{"error":{"message":"bad key"}}"#));
    let (_, out, _) = output(&["exam", "--upstream", &upstream.url()]);
    assert!(out.contains("failed  read and 29 more tasks: ") && out.matches("bad key").count() == 1, "{out}");

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

/// A call in the form of Qwen3-Coder.
fn markup(name: &str, arguments: &[(&str, &str)]) -> String {
    let parameters: String =
        arguments.iter().map(|(key, value)| format!("<parameter={key}>\n{value}\n</parameter>\n")).collect();
    format!("<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>")
}

/// The right answers to all tasks, in their order, as the text that the model writes, each with the stop string that ended it.
fn right_answers() -> Vec<(String, Option<&'static str>)> {
    let read = |path: &str| markup("Read", &[("file_path", path)]);
    let bash = |command: &str| markup("Bash", &[("command", command)]);
    let todos = r#"[{"content":"build","status":"completed"},{"content":"test","status":"pending"}]"#;
    let questions = r#"[{"question":"Which port?","options":[{"label":"8080"},{"label":"9090"}]}]"#;
    let filter = r#"{"labels":["bug","urgent"],"closed":false}"#;
    let edit =
        [("file_path", "/srv/m.py"), ("old_string", r#"x = "<a>""#), ("new_string", r#"x = '{"k": 1}'"#)];
    let plain = [
        read("/srv/app/main.rs"),
        bash("git status --short"),
        markup("Read", &[("file_path", "/srv/app/log.txt"), ("offset", "120"), ("limit", "20")]),
        read("/srv/a.txt") + "\n" + &read("/srv/b.txt"),
        read("/x/1.md") + &read("/x/2.md") + &read("/x/3.md"),
        markup("Grep", &[("pattern", "TODO")]) + &bash("date"),
        markup("TodoWrite", &[("todos", todos)]),
        markup("AskUserQuestion", &[("questions", questions)]),
        markup("mcp__tracker__list_issues", &[("filter", filter)]),
        bash(r#"echo "it's \"fine\"""#),
        markup("Write", &[("file_path", "/tmp/n.txt"), ("content", "one\ntwo\nthree")]),
        markup("Edit", &edit),
        read("/srv/README.md"),
        markup("Glob", &[("pattern", "**/*.rs")]),
        bash("make clean"),
        read("/etc/hostname"),
        "42".into(),
        "It is 6.12.9-arm64.".into(),
        read("/srv/app/last.rs"),
        "707".into(),
        read("/z/1.rs") + &read("/z/2.rs"),
        "Hello.".into(),
        "fn".into(),
        "There are 37.".into(),
        r#"{"title":"Parser bug","isNewTopic":true}"#.into(),
        r#"{"port":443}"#.into(),
        markup("WebSearch", &[("query", "rust 2027")]),
    ];
    let stopped =
        [("<block>no".to_owned(), Some("</block>")), ("one, two, three, ".to_owned(), Some("four"))];
    let plain = plain.into_iter().map(|text| (text, None));
    plain.chain(stopped).chain([("done".to_owned(), None)]).collect()
}

#[test]
fn a_right_model_behind_a_server_without_a_parser_shows_what_repairs_gain() {
    for (arguments, expected, is_repaired) in
        [(&[][..], (11, 19, 0), true), (&["--no-repairs"], (11, 0, 19), false)]
    {
        let upstream = Upstream::start();
        for (text, stop) in right_answers() {
            let mut end = finish("stop");
            end["choices"][0]["stop_reason"] = json!(stop);
            upstream.next_chunks(vec![delta(json!({"content": text})), end, usage(10, 20)]);
        }
        let told = report(&[&["--upstream", &upstream.url()], arguments].concat());
        let counts = (count(&told, "passed"), count(&told, "repaired"), count(&told, "failed"));
        assert_eq!(counts, expected, "{told:#}");
        assert_eq!(told["repairs"], is_repaired);
        assert!(told["advice"][0].as_str().unwrap().contains("--tool-call-parser qwen3_coder"), "{told}");
    }
}

#[test]
fn a_vllm_without_a_parser_is_asked_for_calls_as_text_unless_nothing_is_repaired() {
    let refusal = r#"{"error":{"message":"\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set","code":400}}"#;
    let text = markup("Read", &[("file_path", "/srv/app/main.rs")]);
    let upstream = Upstream::start();
    upstream.next_answer(400, refusal);
    upstream.next_chunks(vec![delta(json!({"content": text})), finish("stop"), usage(10, 20)]);
    let told = report(&["--upstream", &upstream.url()]);
    assert_eq!(told["tasks"][0]["verdict"], "repaired", "{told}");
    assert!(told["request_repairs"].to_string().contains("asked for as text"), "{told}");
    assert_eq!(upstream.seen()[2].body["tool_choice"], "none", "the next task");

    let upstream = Upstream::start();
    upstream.next_answer(400, refusal);
    let told = report(&["--no-repairs", "--upstream", &upstream.url()]);
    assert_eq!((told["tasks"][0]["verdict"].as_str(), upstream.seen().len()), (Some("failed"), 30));
    assert_eq!(told["request_repairs"], json!([]));
}

#[test]
fn dropped_answers_have_later_calls_come_as_text() {
    let upstream = Upstream::start();
    upstream.next_chunks(vec![delta(json!({"content": ""})), finish("stop"), usage(10, 22)]);
    let told = report(&["--upstream", &upstream.url()]);
    assert_eq!(told["tasks"][0]["verdict"], "failed");
    let advice = told["advice"][0].as_str().unwrap();
    assert!(advice.contains("did not show") && advice.contains("--tool-call-parser qwen3_coder"), "{told}");
    assert_eq!(upstream.seen()[1].body["tool_choice"], "none");
}

#[test]
fn a_server_that_hangs_ends_the_exam_with_its_table() {
    let upstream = Upstream::start();
    for _ in 0..3 {
        upstream.next(|call| {
            call.wait_for_close();
            Then::Close
        });
    }
    let (code, out, err) = output(&["exam", "--json", "--timeout", "1", "--upstream", &upstream.url()]);
    assert!(code == Some(1) && err.contains("has stopped answering"), "{err}");
    let told = serde_json::from_str::<Value>(&out).unwrap()[0].take();
    assert_eq!((count(&told, "failed"), upstream.seen().len()), (30, 3));
    assert!(told["tasks"][29]["why"].as_str().unwrap().starts_with("not asked"), "{told}");
    assert!(!err.contains("task 4 of 30"), "{err}");
}

#[test]
fn an_answer_that_comes_slowly_is_a_failure_of_its_task_and_not_the_end_of_the_exam() {
    let upstream = Upstream::start();
    for _ in 0..3 {
        upstream.next(|call| {
            call.stream_head();
            call.chunk(&delta(json!({"content": "slow"})));
            // Blank lines come until the exam leaves, too few bytes for the limit of an answer's size.
            while call.try_piece("\n").is_ok() {}
            Then::Close
        });
    }
    let told = report(&["--timeout", "1", "--upstream", &upstream.url()]);
    let why = told["tasks"][2]["why"].as_str().unwrap();
    assert!(why.contains("--timeout") && !why.contains("refused"), "{why}");
    assert_eq!(upstream.seen().len(), 30);
}

#[test]
fn an_upstream_that_is_down_does_not_end_the_exam_of_the_others() {
    let upstream = Upstream::start();
    let (address, _socket) = closed();
    let down = format!("http://{address}/v1");
    for (order, failed, passed) in
        [([down.as_str(), &upstream.url()], 0, 1), ([&upstream.url(), down.as_str()], 1, 0)]
    {
        let (code, out, err) = output(&["exam", "--json", "--upstream", order[0], "--upstream", order[1]]);
        let told: Value = serde_json::from_str(&out).unwrap();
        assert!(code == Some(1) && err.contains("upstream "), "{err}");
        assert!(told[failed]["error"].as_str().unwrap().contains("upstream "), "{told}");
        assert_eq!((&told[failed]["url"], count(&told[passed], "failed")), (&json!(down), 29), "{told}");
    }
}
