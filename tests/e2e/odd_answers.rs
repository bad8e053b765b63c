//! Answers in odd forms: connections that end late or too early behind a whole answer, and heads that say something else
//! than the body.

use serde_json::json;

use super::client::{hello, hello_stream};
use super::server::Server;
use super::upstream::{Then, Upstream, delta, finish, text_chunks, usage};

// covers: 122
#[test]
fn a_whole_answer_is_kept_however_its_connection_ends() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for (has_counts, is_silent) in [(true, false), (true, true), (false, false), (false, true)] {
        for body in [hello(), hello_stream()] {
            upstream.next(move |call| {
                call.stream_head();
                [delta(json!({"content": "All of it."})), finish("stop")].iter().for_each(|c| call.chunk(c));
                if has_counts {
                    call.chunk(&usage(20, 5));
                }
                // The last chunk of the body never comes.
                if is_silent {
                    call.wait_for_close();
                }
                Then::Close
            });
            let answer = server.connect().post(&body);
            let content = match body.get("stream") {
                Some(_) => answer.whole_events(),
                None => answer.message(),
            };
            assert_eq!(content[0]["text"], "All of it.", "{has_counts} {is_silent}");
        }
    }
}

#[test]
fn an_answer_without_an_end_is_not_whole() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.next(|call| {
        call.stream_head();
        call.chunk(&delta(json!({"content": "Half"})));
        call.chunk(&usage(20, 5));
        Then::Close
    });
    assert_eq!(server.connect().post(&hello()).status, 502);
}

#[test]
fn a_stop_sequence_of_the_proxy_costs_no_counts() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut body = hello();
    body["stop_sequences"] = json!(["END"]);
    body["tools"] = json!([{"name": "t", "input_schema": {"type": "object"}}]);
    upstream.next(|call| {
        call.stream_head();
        ["One END", " two"].iter().for_each(|text| call.chunk(&delta(json!({"content": text}))));
        call.chunk(&finish("stop"));
        let mut counts = usage(300, 9);
        counts["usage"]["prompt_tokens_details"] = json!({"cached_tokens": 256});
        call.chunk(&counts);
        call.done()
    });
    let message = server.connect().post(&body).json();
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("END"))
    );
    assert_eq!(message["content"], json!([{"type": "text", "text": "One "}]));
    let counts =
        ["input_tokens", "cache_read_input_tokens", "output_tokens"].map(|key| &message["usage"][key]);
    assert_eq!(counts, [&json!(44), &json!(256), &json!(9)]);
    // A model that goes on is ended.
    upstream.next(|call| {
        call.stream_head();
        call.chunk(&delta(json!({"content": "One END"})));
        call.wait_for_close();
        Then::Close
    });
    assert_eq!(server.connect().post(&body).json()["stop_sequence"], "END");
}

#[test]
fn heads_that_name_another_form_of_the_body() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // Each of these bodies is called JSON.
    for header in ["", "content-encoding: none\r\n", "content-encoding: Identity\r\n"] {
        for body in [hello(), hello_stream()] {
            upstream.next(move |call| {
                let chunks = text_chunks("Hello there");
                let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
                call.whole_with(200, header, &format!("{events}data: [DONE]\n\n"))
            });
            let answer = server.connect().post(&body);
            let content = match body.get("stream") {
                Some(_) => answer.whole_events(),
                None => answer.message(),
            };
            assert_eq!(content[0]["text"], "Hello there", "{header}");
        }
    }
    upstream.next(|call| call.whole_with(200, "content-encoding: gzip\r\n", "x"));
    assert_eq!(server.connect().post(&hello()).status, 502);
}

#[test]
fn a_page_in_place_of_an_answer_is_told_with_its_text() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let page = "<!DOCTYPE html><html><head><title>x</title></head><body><h1>Sign in</h1></body></html>";
    for (kind, body, text) in [
        ("text/html; charset=utf-8", page, "check its address: Sign in"),
        ("application/json", page, "check its address: Sign in"),
        ("text/html", "", "check its address: "),
        ("text/plain", "model server is up\n", "check its address: model server is up"),
    ] {
        for request in [hello(), hello_stream()] {
            upstream.next(move |call| {
                let size = body.len();
                call.write(&format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n\r\n{body}"
                ));
                Then::Keep
            });
            let answer = server.connect().post(&request);
            let (_, message) = answer.error();
            assert_eq!(answer.status, 502, "{kind}: {message}");
            assert!(message.ends_with(text), "{kind}: {message}");
        }
    }
}

#[test]
fn an_error_as_a_whole_answer_of_status_200_is_tried_again() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.next_answer(200, r#"{"error":{"message":"overloaded","code":503}}"#);
    upstream.next_chunks(text_chunks("Hello"));
    assert_eq!(server.connect().post(&hello()).message()[0]["text"], "Hello");
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn a_role_that_comes_at_once_does_not_end_the_time_for_the_prompt() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--first-byte-timeout", "1"]);
    upstream.next(|call| {
        call.stream_head();
        call.chunk(&delta(json!({"role": "assistant", "content": ""})));
        call.wait_for_close();
        Then::Close
    });
    let answer = server.connect().post(&hello());
    let message = "upstream 'default' timed out before the first byte";
    assert_eq!((answer.status, answer.error().1.as_str()), (504, message));
}

#[test]
fn a_page_that_repeats_the_key_is_told_without_it() {
    const KEY: &str = "sk-live-9f8e7d6c5b4a";
    let upstream = Upstream::start();
    let arguments = ["serve", "--upstream", &upstream.url()];
    let server = Server::run(&arguments, &[("SPARKGAP_UPSTREAM_KEY", KEY)]);
    for kind in ["text/plain", "text/html"] {
        let page = format!("GET / HTTP/1.1\nauthorization: {KEY}\n");
        upstream.next(move |call| {
            let size = page.len();
            call.write(&format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n\r\n{page}"
            ));
            Then::Keep
        });
        let answer = server.connect().post(&hello());
        let (_, message) = answer.error();
        assert_eq!(answer.status, 502, "{message}");
        assert!(message.contains("authorization: ***") && !message.contains(KEY), "{message}");
    }
    let log = server.terminate_and_log();
    assert!(!log.contains(KEY), "{log}");
}
