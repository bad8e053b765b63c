//! A box of a pool fails in each phase of an answer: the client notices as little as possible.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::client::{Client, hello, post_with};
use super::physics::server::{Answer as Length, Fault, ModelServer, Phase};
use super::pool::{ask, box_of, boxes, line_of, question, send, serve, session, text, turn};
use super::server::Server;
use super::upstream::Upstream;

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
    // It breaks off every answer, though it accepts connections: the client must not come back to it.
    boxes[home].set_fault(Some(Fault::Reset(Phase::Text)));
    let body = turn(&json!([question("Go.")]));
    let mut client = send(&server, &session("one"), &body);
    client.head();
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(rest.contains("text_delta") && !rest.contains("event: error"), "{rest}");
    assert!(!rest.ends_with("0\r\n\r\n"), "the end of the body would look like the end of the answer");
    server.wait_for("cut off, so that the client asks again");
    let answer = ask(&server, &session("one"), &body);
    answer.whole_events();
    assert!(line_of(&server, &answer).contains(" failover lane 0 "));
}

#[test]
fn a_stream_waits_for_boxes_that_are_all_dead_and_a_whole_answer_does_not() {
    let boxes: [_; 2] = boxes();
    let server = serve(&boxes, &["--open-after", "1", "--ping-every", "1"]);
    boxes.iter().for_each(ModelServer::kill);
    let mut body = turn(&json!([question("Go.")]));
    body["stream"] = false.into();
    // The first one finds the boxes dead, the second one knows it: both end alike.
    for _ in 0..2 {
        let answer = ask(&server, "", &body);
        assert_eq!((answer.status, answer.header("retry-after")), (529, Some("5")), "{}", answer.text());
        assert!(answer.error().1.starts_with("none of this model's upstreams answers"), "{}", answer.text());
    }
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
    assert!(answer.text().contains("overloaded_error"), "{}", answer.text());
}

#[test]
fn a_refusal_of_a_request_is_no_failure_of_its_box() {
    let boxes = [(); 2].map(|()| Upstream::start());
    let urls: Vec<String> = boxes.iter().map(Upstream::url).collect();
    let server = Server::run(&["serve", "--upstream", &urls[0], "--upstream", &urls[1]], &[]);
    server.wait_for("upstream default: ");
    server.wait_for("upstream upstream2: ");
    let asked = || boxes.iter().map(|one| one.seen().len()).sum::<usize>();
    for number in 0..8 {
        // Whichever box gets the request refuses it.
        for one in &boxes {
            one.next_answer(400, r#"{"error":{"message":"this prompt is not to our taste"}}"#);
        }
        let mut body = hello();
        body["system"] = json!(format!("conversation {number}"));
        let before = asked();
        assert_eq!((server.connect().post(&body).status, asked()), (400, before + 1), "{number}");
    }
    assert!(!server.log().contains(": out ("), "{}", server.log());
}

/// The conversations at a time, and the turns of each.
const CONVERSATIONS: usize = 50;
const TURNS: usize = 3;

/// Asks one turn as Claude Code does: an answer that is cut is asked for again. Returns the content.
fn ask_again(address: SocketAddr, headers: &str, body: &Value) -> Vec<Value> {
    for _ in 0..8 {
        // The server closes the connection behind a whole answer, too.
        let mut client = Client::connect(address);
        let headers = format!("{headers}connection: close\r\n");
        client.send(&post_with(&headers, body.to_string().as_bytes()));
        let mut answer = client.head();
        answer.body = pieces(&client.rest());
        assert!(answer.status == 200 && !answer.text().contains("event: error"), "{}", answer.text());
        if answer.text().contains("event: message_stop") {
            return answer.whole_events();
        }
    }
    panic!("cut eight times")
}

/// The content of the chunks, as far as they are whole.
fn pieces(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunked.windows(2).position(|pair| pair == b"\r\n") {
        let size = usize::from_str_radix(str::from_utf8(&chunked[..end]).unwrap(), 16).unwrap();
        let Some(piece) = chunked.get(end + 2..end + 2 + size) else { break };
        body.extend_from_slice(piece);
        chunked = chunked.get(end + 4 + size..).unwrap_or_default();
    }
    body
}

#[test]
fn every_conversation_goes_on_while_boxes_are_killed_and_started() {
    let boxes: [_; 2] = boxes();
    boxes.iter().for_each(|one| one.set_script(|_| Length { thinking: 20, text: 30 }));
    let server = serve(&boxes, &[]);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CONVERSATIONS {
            let (address, answered) = (server.address, &answered);
            scope.spawn(move || {
                let mut messages = json!([question(&format!("Task {number}."))]);
                for _ in 0..TURNS {
                    let mut body = turn(&messages);
                    body["thinking"] = json!({"type": "adaptive"});
                    let content = ask_again(address, &session(&format!("s{number}")), &body);
                    assert_eq!(text(&content).len(), 120, "each answer is whole");
                    answered.fetch_add(1, Ordering::Relaxed);
                    let said = json!({"role": "assistant", "content": content});
                    messages.as_array_mut().unwrap().extend([said, question("Go on.")]);
                }
            });
        }
        for (count, act) in [
            (20, &(|| boxes[0].kill()) as &dyn Fn()),
            (50, &|| boxes[0].restart()),
            (70, &|| boxes[1].kill()),
            (100, &|| boxes[1].restart()),
        ] {
            while answered.load(Ordering::Relaxed) < count {
                thread::yield_now();
            }
            act();
        }
    });
    assert_eq!(answered.into_inner(), CONVERSATIONS * TURNS);
    // No box works for nobody.
    server.wait_until(|health| health["pool"].as_object().unwrap().values().all(|one| one["in_flight"] == 0));
    assert!(boxes.iter().all(|one| one.load() == (0, 0)), "{:?}", [boxes[0].load(), boxes[1].load()]);
}
