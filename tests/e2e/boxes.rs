//! sparkgap in front of a model server with physics: the box's memory serves the next turn, and its faults reach the
//! client as errors that it understands.

use serde_json::{Value, json};

use super::client::Answer;
use super::physics::engine::Profile;
use super::physics::server::{Fault, MODEL, ModelServer, Phase};
use super::server::Server;
use super::validator::Ended;

fn start() -> (ModelServer, Server) {
    let one = ModelServer::start(Profile::spark(), 500.0);
    let server = Server::run(&["serve", "--upstream", &one.url()], &[]);
    server.wait_for("upstream default: ");
    (one, server)
}

fn ask(server: &Server, messages: &Value) -> Answer {
    let system = json!([{"type": "text", "text": "You are Claude Code. ".repeat(500)}]);
    let body =
        json!({"model": MODEL, "max_tokens": 60, "stream": true, "system": system, "messages": messages});
    server.connect().post(&body)
}

fn question() -> Value {
    json!({"role": "user", "content": "Read the module."})
}

#[test]
fn the_next_turn_reads_the_box_s_memory() {
    let (one, server) = start();
    let text = |answer: &Answer| -> String {
        let deltas = answer.data("content_block_delta");
        deltas.iter().filter_map(|event| event["delta"]["text"].as_str()).collect()
    };
    let first = text(&ask(&server, &json!([question()])));
    assert_eq!(first.len(), 240);
    let turn = json!([question(), {"role": "assistant", "content": first}, question()]);
    let second = ask(&server, &turn);
    let totals = one.totals();
    // Only the new turn and the pieces of blocks around it are computed.
    assert!(totals.cached > 2500 && totals.prefilled < totals.cached + 200, "{totals:?}");
    let usage = &second.data("message_delta")[0]["usage"];
    assert_eq!(usage["cache_read_input_tokens"], totals.cached, "{usage}");
}

#[test]
fn a_box_that_breaks_off_fails_one_request_only() {
    let (one, server) = start();
    for phase in [Phase::Head, Phase::Prefill, Phase::Text] {
        one.fail_next(Fault::Reset(phase));
        // A connection that was used before is tried twice, so the fault may stay unseen before the head.
        let answer = ask(&server, &json!([question()]));
        let is_whole = answer.status == 200 && answer.text().contains("message_stop");
        assert!(is_whole != answer.text().contains("error"), "{phase:?}: {}", answer.text());
        assert!(!is_whole || phase != Phase::Text, "{}", answer.text());
        assert_eq!(ask(&server, &json!([question()])).status, 200);
    }
}

#[test]
fn a_box_that_was_killed_serves_again_after_its_restart() {
    let (one, server) = start();
    assert_eq!(ask(&server, &json!([question()])).status, 200);
    one.kill();
    let (kind, message) = ask(&server, &json!([question()])).error();
    assert!(!kind.is_empty() && message.contains("default"), "{kind}: {message}");
    one.restart();
    assert_eq!(ask(&server, &json!([question()])).status, 200);
    assert_eq!(one.totals().cached, 0);
}

#[test]
fn a_box_that_hangs_behind_green_pages_loses_its_requests_to_the_other_one() {
    let (one, other) =
        (ModelServer::start(Profile::spark(), 500.0), ModelServer::start(Profile::spark(), 500.0));
    let server = Server::run(
        &["serve", "--upstream", &one.url(), "--upstream", &other.url(), "--hang-after", "2"],
        &[],
    );
    server.wait_until(|_| server.log().matches("serves spark").count() == 2);
    // It lists its models and its metrics, but no token comes.
    one.set_speed(0.0);
    let ask = |at: usize| {
        let mut client = server.connect();
        let text = format!("Read module {at}. {}", "word ".repeat(400));
        let messages = json!([{"role": "user", "content": text}]);
        let body = json!({"model": MODEL, "max_tokens": 60, "stream": true, "messages": messages});
        std::thread::spawn(move || client.post(&body))
    };
    let asked: Vec<_> = (0..6).map(ask).collect();
    for answer in asked {
        let answer = answer.join().unwrap();
        assert_eq!((answer.status, answer.events().0), (200, Ended::Whole), "{}", answer.text());
    }
    let line = server.wait_for("it hangs");
    assert!(line.contains("restart the model server"), "{line}");
    assert_eq!(one.totals().generated, 0);
}
