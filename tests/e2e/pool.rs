//! Several boxes behind one name: where requests go, who waits, and what a reload keeps.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;

use serde_json::{Value, json};

use super::HANG;
use super::client::{Answer, Client, hello, hello_stream, post_to, post_with};
use super::physics::engine::Profile;
use super::physics::server::{MODEL, ModelServer};
use super::server::{Server, hooks_file};
use super::upstream::{Gate, Upstream};

/// Boxes whose clocks run 500 times as fast as the real one.
pub(crate) fn boxes<const COUNT: usize>() -> [ModelServer; COUNT] {
    std::array::from_fn(|_| ModelServer::start(Profile::spark(), 500.0))
}

/// A server in front of these boxes, without any Lua.
pub(crate) fn serve(boxes: &[ModelServer], options: &[&str]) -> Server {
    let urls: Vec<String> = boxes.iter().map(ModelServer::url).collect();
    let upstreams = urls.iter().flat_map(|url| ["--upstream", url]);
    let arguments: Vec<&str> =
        ["serve"].into_iter().chain(upstreams).chain(options.iter().copied()).collect();
    let server = Server::run(&arguments, &[]);
    server.wait_for("upstream default: ");
    (2..=boxes.len()).for_each(|number| _ = server.wait_for(&format!("upstream upstream{number}: ")));
    server
}

/// A server with a file of its own, and the file's path.
fn serve_file(name: &str, lua: &str, upstreams: &[&str]) -> (Server, String) {
    let path = hooks_file(name, lua);
    let server = Server::run(&["serve", "--hooks", &path, "--open-after", "1", "--ping-every", "1"], &[]);
    upstreams.iter().for_each(|upstream| _ = server.wait_for(&format!("upstream {upstream}: ")));
    (server, path)
}

/// A line of a file that names an upstream.
fn named(name: &str, url: &str, more: &str) -> String {
    format!("{name} = {{ url = \"{url}\"{more} }},\n")
}

/// A turn of a conversation: all its messages so far, behind a system prompt of some 2,600 tokens. Each first message has
/// a prompt of its own, so that no box has read its beginning for another conversation.
pub(crate) fn turn(messages: &Value) -> Value {
    let first = messages[0]["content"].as_str().unwrap();
    let system = json!([{"type": "text", "text": format!("{first} You are Claude Code. ").repeat(450)}]);
    json!({"model": "claude-sonnet-5", "max_tokens": 60, "stream": true, "system": system, "messages": messages})
}

pub(crate) fn question(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

pub(crate) fn session(name: &str) -> String {
    format!("x-claude-code-session-id: {name}\r\n")
}

pub(crate) fn send(server: &Server, headers: &str, body: &Value) -> Client {
    let mut client = server.connect();
    client.send(&post_with(headers, body.to_string().as_bytes()));
    client
}

pub(crate) fn ask(server: &Server, headers: &str, body: &Value) -> Answer {
    send(server, headers, body).receive()
}

/// The text of a content.
pub(crate) fn text(content: &[Value]) -> String {
    content.iter().filter_map(|block| block["text"].as_str()).collect()
}

/// The numbers of answers that the boxes have finished.
pub(crate) fn done(boxes: &[ModelServer]) -> Vec<u64> {
    boxes.iter().map(|one| one.totals().done).collect()
}

/// The index of the box that finishes an answer meanwhile.
pub(crate) fn box_of(boxes: &[ModelServer], act: impl FnOnce()) -> usize {
    let before = done(boxes);
    act();
    let after = done(boxes);
    let mut grown = (0..boxes.len()).filter(|at| after[*at] > before[*at]);
    let found = grown.next().unwrap_or_else(|| panic!("no box has answered: {before:?} {after:?}"));
    assert_eq!(grown.next(), None, "{before:?} {after:?}");
    found
}

/// The line in the log of the request that this answer belongs to.
pub(crate) fn line_of(server: &Server, answer: &Answer) -> String {
    server.wait_for(&format!("{} 127.0.0.1", answer.header("request-id").unwrap()))
}

/// Asks the first two turns of a conversation, and returns the box of each, and the second answer.
fn two_turns(server: &Server, boxes: &[ModelServer], headers: &str, first: &str) -> (usize, usize, Answer) {
    let (mut messages, mut answer) = (json!([question(first)]), None);
    let home = box_of(boxes, || answer = Some(ask(server, headers, &turn(&messages))));
    let said = answer.take().unwrap();
    let why = line_of(server, &said);
    assert!(why.contains(" cost lane 0 queued 0 ms "), "{why}");
    let said = json!({"role": "assistant", "content": text(&said.whole_events())});
    messages.as_array_mut().unwrap().extend([said, question("Go on.")]);
    let second = box_of(boxes, || answer = Some(ask(server, headers, &turn(&messages))));
    (home, second, answer.unwrap())
}

#[test]
fn conversations_are_spread_and_each_comes_home() {
    let boxes: [_; 2] = boxes();
    let server = serve(&boxes, &[]);
    let mut homes = BTreeSet::new();
    for number in 0..24 {
        // One half names its session; the other one is known by its first message.
        let headers = if number % 2 == 0 { session(&format!("s{number}")) } else { String::new() };
        let (home, second, answer) = two_turns(&server, &boxes, &headers, &format!("Task {number}."));
        assert_eq!(home, second, "{number}");
        let line = line_of(&server, &answer);
        assert!(line.contains(" home lane 0 queued 0 ms ") && !line.contains("cached 0 "), "{line}");
        let usage = &answer.data("message_delta")[0]["usage"];
        assert!(usage["cache_read_input_tokens"].as_u64().unwrap() > 2500, "{usage}");
        homes.insert(home);
    }
    assert_eq!(homes.len(), 2, "both boxes have conversations");
}

#[test]
fn members_name_their_models_and_backups_come_in_order() {
    let boxes: [_; 4] = boxes();
    let (asked, was_asked) = channel();
    for (one, name) in boxes.iter().zip("abcd".chars()) {
        let asked = asked.clone();
        one.set_script(move |chat| {
            asked.send((name, chat["model"].as_str().unwrap().to_owned())).unwrap();
            super::physics::server::Answer { thinking: 0, text: 9 }
        });
    }
    let lines: String =
        boxes.iter().zip(["a", "b", "c", "d"]).map(|(it, name)| named(name, &it.url(), "")).collect();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ {lines} }}, aliases = {{
            {{ "*", upstream = {{ "a", {{ "b", model = "special" }} }}, backup = {{ "c", {{ "d", model = "last" }} }} }},
        }} }}"#
    );
    let (server, _) = serve_file("pool_backup", &lua, &["a", "b", "c", "d"]);
    let ask = |number: usize| {
        let body = turn(&json!([question(&format!("Task {number}."))]));
        ask(&server, "", &body).whole_events();
        was_asked.recv_timeout(HANG).unwrap()
    };
    let members: BTreeSet<_> = (0..12).map(ask).collect();
    let expect = |list: &[(char, &str)]| {
        list.iter().map(|(name, model)| (*name, (*model).to_owned())).collect::<BTreeSet<_>>()
    };
    assert_eq!(members, expect(&[('a', MODEL), ('b', "special")]));
    for (dead, next) in [(0, ('b', "special")), (1, ('c', MODEL)), (2, ('d', "last"))] {
        boxes[dead].kill();
        assert_eq!((0..4).map(ask).collect::<BTreeSet<_>>(), expect(&[next]), "{dead}");
    }
}

#[test]
fn a_hook_chooses_among_boxes_and_lanes() {
    let boxes: [_; 3] = boxes();
    let lines: String =
        boxes.iter().zip(["a", "b", "c"]).map(|(it, name)| named(name, &it.url(), "")).collect();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ {lines} }},
            on_request = function(req, body) return {{ upstream = {{ "b", "c" }}, lane = 2 }} end }}"#
    );
    let (server, _) = serve_file("pool_hook", &lua, &["a", "b", "c"]);
    for number in 0..12 {
        let answer = ask(
            &server,
            &session(&number.to_string()),
            &turn(&json!([question(&format!("Task {number}."))])),
        );
        let line = line_of(&server, &answer);
        assert!(line.contains(" cost lane 2 "), "{line}");
    }
    let done = done(&boxes);
    assert!(done[0] == 0 && done[1] > 0 && done[2] > 0, "{done:?}");
}

#[test]
fn a_box_that_drains_loses_its_conversations_at_their_next_turn() {
    let boxes: [_; 2] = boxes();
    let lua = |drains: Option<usize>| {
        let line = |at: usize, name: &str| {
            named(name, &boxes[at].url(), if drains == Some(at) { ", drain = true" } else { "" })
        };
        format!("return {{ api = 1, upstreams = {{ {} {} }} }}", line(0, "a"), line(1, "b"))
    };
    let (server, path) = serve_file("pool_drain", &lua(None), &["a", "b"]);
    let reload = |drains| {
        let before = server.log().matches("hooks loaded: ").count();
        std::fs::write(&path, lua(drains)).unwrap();
        server.hang_up();
        while server.log().matches("hooks loaded: ").count() == before {
            server.health();
        }
    };
    let body = turn(&json!([question("Go.")]));
    let mut answer = None;
    let mut ask_again = || {
        let at = box_of(&boxes, || answer = Some(ask(&server, &session("one"), &body)));
        (at, line_of(&server, answer.as_ref().unwrap()))
    };
    let (home, _) = ask_again();
    // A reload that changes nothing keeps the conversations.
    reload(None);
    let (at, line) = ask_again();
    assert!(at == home && line.contains(" home lane"), "{line}");
    reload(Some(home));
    let (at, line) = ask_again();
    assert!(at != home && line.contains(" only lane"), "{line}");
    reload(None);
    let (at, line) = ask_again();
    assert!(at != home && line.contains(" home lane"), "{line}");
}

/// Has the file of a server changed, and waits until it holds.
fn reload(server: &Server, path: &str, lua: &str) {
    let before = server.log().matches("hooks loaded: ").count();
    std::fs::write(path, lua).unwrap();
    server.hang_up();
    while server.log().matches("hooks loaded: ").count() == before {
        server.health();
    }
}

/// The number of tokens that a server counts for `Hi`.
fn count_tokens(server: &Server) -> u64 {
    let answer = server.connect().ask(&post_to("/v1/messages/count_tokens", &hello()));
    answer.json()["input_tokens"].as_u64().unwrap()
}

#[test]
fn tokens_are_counted_by_a_box_that_is_in_use() {
    let boxes = [(); 2].map(|()| Upstream::start());
    boxes[0].set_tokens(111);
    boxes[1].set_tokens(222);
    let lua = |first: &str, more: &str| {
        let lines = [named("a", first, more), named("b", &boxes[1].url(), "")].concat();
        format!(
            "return {{ api = 1, upstreams = {{ {lines} }}, aliases = {{ {{ \"*\", upstream = {{ \"a\", \"b\" }} }} }} }}"
        )
    };
    let url = boxes[0].url();
    let (server, path) = serve_file("pool_count", &lua(&url, ""), &["a", "b"]);
    assert_eq!(count_tokens(&server), 111);
    reload(&server, &path, &lua(&url, ", drain = true"));
    assert_eq!(count_tokens(&server), 222);
    // All drain: the first one counts.
    let both = lua(&url, ", drain = true").replace("b = {", "b = { drain = true,");
    reload(&server, &path, &both);
    assert_eq!(count_tokens(&server), 111);
    // A box that is out is not asked.
    let (address, _socket) = super::upstream::closed();
    reload(&server, &path, &lua(&format!("http://{address}/v1"), ""));
    server.wait_until(|health| health["pool"]["a"]["state"] == "out");
    assert_eq!(count_tokens(&server), 222);
}

#[test]
fn a_reload_that_changes_how_a_box_is_used_keeps_what_is_known_of_it() {
    let upstream = Upstream::start();
    upstream.set_tokens(222);
    let lua = |more: &str| {
        format!("return {{ api = 1, upstreams = {{ {} }} }}", named("one", &upstream.url(), more))
    };
    let (server, path) = serve_file("pool_kept", &lua(", max_in_flight = 4"), &["one"]);
    server.connect().post(&hello()).message();
    assert_eq!(count_tokens(&server), 222);
    // From now on another count would be told.
    upstream.set_tokens(333);
    for more in [", max_in_flight = 5", ", max_in_flight = 5, drain = true", ", wake = \"aa:bb:cc:dd:ee:ff\""]
    {
        reload(&server, &path, &lua(more));
        server.connect().post(&hello()).message();
        assert_eq!(count_tokens(&server), 222, "{more}");
    }
    let connections: BTreeSet<usize> = upstream.seen().iter().map(|seen| seen.connection).collect();
    // A second one is made if the first one is not given back yet when the next question comes.
    assert!(connections.len() <= 2, "{connections:?}");
    assert_eq!(server.health()["pool"]["one"]["max_in_flight"], Value::Null);
    // Another setting makes it another upstream.
    reload(&server, &path, &lua(", max_in_flight = 5, model = \"qwen3\""));
    assert_eq!(count_tokens(&server), 333);
}

/// A server with one place in front of this upstream, and the first request in that place until the gate opens.
fn occupied(name: &str, upstream: &Upstream) -> (Server, Client, Gate) {
    let lua = format!(
        "return {{ api = 1, upstreams = {{ {} }} }}",
        named("one", &upstream.url(), ", max_in_flight = 1")
    );
    let (server, _) = serve_file(name, &lua, &["one"]);
    let (gate, (came, has_come)) = (Gate::default(), channel());
    let opened = gate.clone();
    upstream.next(move |call| {
        came.send(()).unwrap();
        opened.wait();
        call.whole(200, r#"{"choices":[{"message":{"content":"First."},"finish_reason":"stop"}]}"#)
    });
    let first = send(&server, "", &hello());
    has_come.recv_timeout(HANG).unwrap();
    (server, first, gate)
}

fn saying(text: &str) -> Value {
    let mut body = hello_stream();
    body["messages"][0]["content"] = text.into();
    body
}

#[test]
fn a_person_goes_before_an_agent_and_background_work() {
    let upstream = Upstream::start();
    let (server, mut first, gate) = occupied("pool_lanes", &upstream);
    let class = |name| format!("x-claude-code-request-class: {name}\r\n");
    let mut waiting: Vec<Client> = ["auxiliary", "subagent", "main"]
        .map(|name| {
            let mut client = send(&server, &class(name), &saying(name));
            // It is in the line when it gets the beginning of an answer.
            client.head();
            client
        })
        .into();
    let mut leaves = send(&server, &class("main"), &saying("leaves"));
    leaves.head();
    drop(leaves);
    server.wait_until(|health| health["cancelled"]["queue"] == 1);
    // It had got the beginning of an answer, which takes a second.
    let line = server.wait_for("the client has left (queue)");
    assert!(line.contains(" lane 0 queued ") && !line.contains(" queued 0 ms"), "{line}");
    gate.open();
    first.receive().message();
    for client in &mut waiting {
        client.read_until("message_stop");
    }
    let content =
        |seen: &super::upstream::Seen| seen.body["messages"][0]["content"].as_str().unwrap().to_owned();
    let order: Vec<String> = upstream.seen().iter().map(content).collect();
    assert_eq!(order, ["Hi", "main", "subagent", "auxiliary"]);
    let line =
        server.terminate_and_log().lines().filter(|line| line.contains(" only lane 1 queued ")).count();
    assert_eq!(line, 1);
}

#[test]
fn vllm_gets_the_lane_as_priority_until_it_refuses_it() {
    let upstream = Upstream::start();
    let lua = format!(
        "return {{ api = 1, upstreams = {{ {} }} }}",
        named("one", &upstream.url(), ", max_in_flight = 4")
    );
    let (server, _) = serve_file("pool_priority", &lua, &["one"]);
    let ask = |class: &str| {
        let headers = format!("x-claude-code-request-class: {class}\r\n");
        assert_eq!(ask(&server, &headers, &hello()).status, 200, "{class}");
    };
    let sent = || upstream.seen().iter().map(|seen| seen.body["priority"].clone()).collect::<Vec<_>>();
    ["main", "subagent", "auxiliary"].into_iter().for_each(ask);
    assert_eq!(sent(), [Value::Null, json!(1), json!(2)], "nothing is sent for the default");
    let refusal =
        r#"{"error":{"message":"Got priority 1 but Priority scheduling is not enabled.","code":400}}"#;
    upstream.next_answer(400, refusal);
    ["subagent"; 2].into_iter().for_each(ask);
    assert_eq!(sent().split_off(3), [json!(1), Value::Null, Value::Null], "it is not asked again");
}

#[test]
fn the_line_has_512_places() {
    let upstream = Upstream::start();
    let (server, mut first, gate) = occupied("pool_line", &upstream);
    let mut waiting: Vec<Client> = (0..512).map(|_| send(&server, "", &hello_stream())).collect();
    for client in &mut waiting {
        client.head();
    }
    let answer = ask(&server, "", &hello());
    assert_eq!((answer.status, answer.header("retry-after")), (529, Some("5")), "{}", answer.text());
    // One that leaves makes room.
    drop(waiting.pop());
    server.wait_until(|health| health["cancelled"]["queue"] == 1);
    send(&server, "", &hello_stream()).head();
    gate.open();
    first.receive().message();
    for client in &mut waiting {
        client.read_until("message_stop");
    }
}
