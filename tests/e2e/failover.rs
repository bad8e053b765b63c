//! A box of a pool fails in each phase of an answer: the client notices as little as possible.

use serde_json::json;

use super::physics::server::{Answer as Length, Fault, ModelServer, Phase};
use super::pool::{ask, box_of, boxes, line_of, question, send, serve, session, text, turn};
use super::server::Server;

/// A server in front of two boxes that think, then write, and the box that has the conversation `one`.
fn start() -> ([ModelServer; 2], Server, usize) {
    let boxes: [_; 2] = boxes();
    boxes.iter().for_each(|one| one.set_script(|_| Length { thinking: 20, text: 30 }));
    let server = serve(&boxes, &[]);
    let body = turn(&json!([question("Go.")]));
    let home = box_of(&boxes, || _ = ask(&server, &session("one"), &body).whole_events());
    (boxes, server, home)
}

#[test]
fn an_answer_without_text_so_far_goes_on_elsewhere() {
    for fault in [
        Fault::Loading,
        Fault::Reset(Phase::Head),
        Fault::Reset(Phase::Prefill),
        Fault::Reset(Phase::Thinking),
    ] {
        for is_streamed in [true, false] {
            let (boxes, server, home) = start();
            boxes[home].set_fault(Some(fault));
            let mut body = turn(&json!([question("Go.")]));
            body["stream"] = is_streamed.into();
            body["thinking"] = json!({"type": "adaptive"});
            let answer = ask(&server, &session("one"), &body);
            // The judge of events refuses a second beginning and blocks out of order.
            let content = if is_streamed { answer.whole_events() } else { answer.message() };
            let kinds: Vec<&str> = content.iter().map(|block| block["type"].as_str().unwrap()).collect();
            assert_eq!(kinds, ["thinking", "text"], "{fault:?}");
            assert_eq!(text(&content).len(), 120, "{fault:?}");
            let line = line_of(&server, &answer);
            let other = ["-> upstream2/", "-> default/"][home];
            assert!(line.contains(" failover lane 0 ") && line.contains(other), "{fault:?}: {line}");
            // The block of thinking, from two boxes, is accepted on the next turn.
            let said = json!({"role": "assistant", "content": content});
            let next = turn(&json!([question("Go."), said, question("And now?")]));
            ask(&server, &session("one"), &next).whole_events();
        }
    }
}

#[test]
fn an_answer_with_text_is_cut_and_asked_for_again() {
    let (boxes, server, home) = start();
    boxes[home].fail_next(Fault::Reset(Phase::Text));
    let body = turn(&json!([question("Go.")]));
    let mut client = send(&server, &session("one"), &body);
    client.head();
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(rest.contains("text_delta") && !rest.contains("event: error"), "{rest}");
    assert!(!rest.ends_with("0\r\n\r\n"), "the end of the body would look like the end of the answer");
    server.wait_for("cut off, so that the client asks again");
    ask(&server, &session("one"), &body).whole_events();
}

#[test]
fn a_stream_waits_for_boxes_that_are_all_dead_and_a_whole_answer_does_not() {
    let boxes: [_; 2] = boxes();
    let server = serve(&boxes, &["--open-after", "1", "--ping-every", "1"]);
    boxes.iter().for_each(ModelServer::kill);
    let mut body = turn(&json!([question("Go.")]));
    body["stream"] = false.into();
    let answer = ask(&server, "", &body);
    assert!(answer.status >= 500 && !answer.error().0.is_empty(), "{}", answer.text());
    body["stream"] = true.into();
    let mut client = send(&server, "", &body);
    client.head();
    client.read_until("ping");
    boxes[1].restart();
    client.read_until("message_stop");
}

#[test]
fn the_wait_for_dead_boxes_has_an_end() {
    let boxes: [_; 2] = boxes();
    let server = serve(&boxes, &["--wait-for-upstream", "1"]);
    boxes.iter().for_each(ModelServer::kill);
    let answer = ask(&server, "", &turn(&json!([question("Go.")])));
    assert!(answer.text().contains("error"), "{}", answer.text());
}
