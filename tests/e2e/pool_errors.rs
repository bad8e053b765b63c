//! Boxes of a pool that answer with errors: which box gets the request next, and what the client is told.

use super::client::{hello, hello_stream, post_with};
use super::server::{Server, hooks_file};
use super::upstream::{Then, Upstream, closed};

const LACKS: &str =
    r#"{"error":{"message":"The model `big` does not exist.","type":"NotFoundError","code":404}}"#;
const REJECTED: &str = r#"{"error":{"message":"wrong key"}}"#;

/// The sum of the chat completions that these boxes were asked for.
fn asked(boxes: &[Upstream]) -> usize {
    boxes.iter().map(|one| one.seen().len()).sum()
}

/// A server in front of two boxes without any file, once it knows their models.
fn serve(boxes: &[Upstream]) -> Server {
    let urls: Vec<String> = boxes.iter().map(Upstream::url).collect();
    let server = Server::run(&["serve", "--upstream", &urls[0], "--upstream", &urls[1]], &[]);
    server.wait_for("upstream default: ");
    server.wait_for("upstream upstream2: ");
    server
}

#[test]
fn a_member_without_its_model_gets_one_request_and_the_others_get_the_rest() {
    let boxes = [(); 2].map(|()| Upstream::start());
    (0..20).for_each(|_| boxes[1].next_answer(404, LACKS));
    let lua = format!(
        "return {{ api = 1, upstreams = {{ a = {{ url = \"{}\" }}, d = {{ url = \"{}\" }} }},\n\
         aliases = {{ {{ \"*\", upstream = {{ \"a\", {{ \"d\", model = \"big\" }} }} }} }} }}",
        boxes[0].url(),
        boxes[1].url()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file("a_member_without_its_model", &lua)], &[]);
    server.wait_for("it does not list the model big of the alias '*'");
    for number in 0..16 {
        let mut body = hello();
        body["system"] = format!("conversation {number}").into();
        let answer = server.connect().post(&body);
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
    }
    let of_d = boxes[1].seen().len();
    assert!(of_d == 1 && boxes[0].seen().len() == 16, "{of_d}");
    server.wait_for("upstream d: it does not have the model big");
}

#[test]
fn a_model_that_no_member_has_is_not_found() {
    let boxes = [(); 2].map(|()| Upstream::start());
    let server = serve(&boxes);
    for round in 1..3 {
        boxes.iter().for_each(|one| one.next_answer(404, LACKS));
        let answer = server.connect().post(&hello());
        assert_eq!(
            (answer.status, answer.header("x-should-retry")),
            (404, Some("false")),
            "{}",
            answer.text()
        );
        assert_eq!(asked(&boxes), 2 * round, "each box is asked once");
    }
}

#[test]
fn a_404_that_names_no_model_goes_to_the_client() {
    let boxes = [(); 2].map(|()| Upstream::start());
    let server = serve(&boxes);
    boxes.iter().for_each(|one| one.next_answer(404, r#"{"error":{"message":"no such page"}}"#));
    assert_eq!((server.connect().post(&hello()).status, asked(&boxes)), (404, 1));
}

#[test]
fn credentials_that_every_box_rejects_are_tried_once_each() {
    for body in [hello(), hello_stream()] {
        let boxes = [(); 2].map(|()| Upstream::start());
        let server = serve(&boxes);
        boxes.iter().for_each(|one| (0..2).for_each(|_| one.next_answer(401, REJECTED)));
        let answer = server.connect().post(&body);
        assert_eq!(
            (answer.status, answer.header("x-should-retry")),
            (502, Some("false")),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains("rejected the gateway's credentials"), "{}", answer.text());
        assert_eq!(asked(&boxes), 2, "{body}");
    }
}

#[test]
fn a_whole_answer_that_every_box_breaks_off_gets_that_error() {
    let boxes = [(); 2].map(|()| Upstream::start());
    let server = serve(&boxes);
    boxes.iter().for_each(|one| one.next(|_| Then::Close));
    let answer = server.connect().post(&hello());
    assert_eq!((answer.status, asked(&boxes)), (502, 2), "{}", answer.text());
}

#[test]
fn a_whole_answer_does_not_wait_for_full_boxes() {
    let boxes = [(); 2].map(|()| Upstream::start());
    let server = serve(&boxes);
    boxes.iter().for_each(|one| one.next_answer(429, r#"{"error":{"message":"busy"}}"#));
    // The first request finds the boxes full, the second one knows it.
    for _ in 0..2 {
        let answer = server.connect().post(&hello());
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (529, true), "{}", answer.text());
    }
    assert_eq!(asked(&boxes), 2);
}

#[test]
fn boxes_that_were_never_reached_are_a_pool() {
    let [(one, first), (other, _second)] = [closed(), closed()];
    let urls = [one, other].map(|address| format!("http://{address}/v1"));
    let options = ["--open-after", "1", "--ping-every", "1"];
    let arguments = [&["serve", "--upstream", &urls[0], "--upstream", &urls[1]], options.as_slice()].concat();
    let server = Server::run(&arguments, &[]);
    server.wait_for("upstream upstream2 did not answer");
    let mut client = server.connect();
    client.send(&post_with("", hello_stream().to_string().as_bytes()));
    client.head();
    client.read_until("ping");
    let _upstream = Upstream::open(first);
    client.read_until("message_stop");
}
