//! The errors for an upstream's failures: an HTTP error before there is content, an event after it.

use std::net::TcpListener;

use serde_json::json;

use super::client::{hello, hello_stream};
use super::server::Server;
use super::upstream::{Then, Upstream, delta, text_chunks};
use super::validator::Ended;

/// The body after status 200 when vLLM's engine dies.
const ENGINE_DEAD: &str = r#"data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}"#;

// covers: 98, 115
#[test]
fn statuses_of_the_upstream_become_the_apis_errors() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let object = |message: &str| json!({"error": {"message": message, "type": "T", "code": 1}}).to_string();
    let cases = [
        (
            400,
            object("temperature must be non-negative"),
            400,
            "invalid_request_error",
            "temperature must",
            None,
        ),
        (
            401,
            r#"{"error":"Unauthorized"}"#.into(),
            502,
            "api_error",
            "the upstream rejected the gateway's cred",
            Some("false"),
        ),
        (
            403,
            object("no"),
            502,
            "api_error",
            "the upstream rejected the gateway's credentials",
            Some("false"),
        ),
        (404, object("The model `x` does not exist."), 404, "not_found_error", "", Some("false")),
        (422, r#"{"detail":[{"loc":["body"],"msg":"bad"}]}"#.into(), 400, "invalid_request_error", "", None),
        (429, object("slow down"), 429, "rate_limit_error", "slow down", Some("true")),
        (500, object("boom"), 500, "api_error", "boom", None),
        (
            500,
            object("Background loop has errored already."),
            529,
            "overloaded_error",
            "Background",
            Some("true"),
        ),
        (500, String::new(), 529, "overloaded_error", "the upstream answered 500", Some("true")),
        (
            500,
            "<html><h1>Traceback /usr/lib</h1></html>".into(),
            500,
            "api_error",
            "the upstream answered 500",
            None,
        ),
        (503, object("Loading model"), 529, "overloaded_error", "Loading model", Some("true")),
        (504, String::new(), 504, "timeout_error", "the upstream answered 504", Some("true")),
    ];
    for (said, body, status, kind, message, retry) in cases {
        for request in [hello(), hello_stream()] {
            let before = upstream.seen().len();
            // Only an error that passes soon is tried again.
            let tries = if status == 529 { 3 } else { 1 };
            (0..tries).for_each(|_| upstream.next_answer(said, &body));
            let answer = server.connect().post(&request);
            assert_eq!(answer.status, status, "{said} {body}");
            let (found, text) = answer.error();
            assert_eq!(found, kind, "{said}: {text}");
            assert!(text.starts_with(message), "{said}: {text}");
            assert_eq!(answer.header("x-should-retry"), retry, "{said}");
            assert_eq!(answer.header("retry-after").is_some(), retry == Some("true"), "{said}");
            assert_eq!(upstream.seen().len(), before + tries, "{said}");
        }
    }
}

// covers: 96
#[test]
fn an_upstream_that_is_starting_is_waited_for() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for request in [hello(), hello_stream()] {
        let before = upstream.seen().len();
        for _ in 0..2 {
            upstream.next(|call| {
                call.whole_with(
                    503,
                    "retry-after: 0\r\n",
                    r#"{"error":{"message":"Loading model","code":503}}"#,
                )
            });
        }
        let answer = server.connect().post(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = upstream.seen();
        assert_eq!(seen.len(), before + 3);
        assert_eq!(seen[before].body, seen[before + 2].body);
    }
}

#[test]
fn an_upstream_that_goes_while_it_may_be_at_work_is_not_asked_again() {
    for request in [hello(), hello_stream()] {
        for said in ["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\ncont"] {
            let upstream = Upstream::start();
            let server = Server::start(&upstream);
            // Connections for the models and for this question; the next request comes on a pooled one where the server
            // has said something, and on a new one where it has not.
            if !said.is_empty() {
                server.connect().post(&hello()).message();
            }
            let before = upstream.seen().len();
            upstream.next(move |call| {
                call.write(said);
                Then::Close
            });
            // A pooled connection that is lost at once may be followed by a new one.
            upstream.next(|_| Then::Close);
            let answer = server.connect().post(&request);
            assert_eq!((answer.status, answer.error().0.as_str()), (502, "api_error"), "{said}");
            assert_eq!(answer.header("x-should-retry"), Some("true"));
            let asked = upstream.seen().len() - before;
            assert!(asked == 1 || (asked == 2 && said.is_empty()), "{asked} times: {said}");
        }
    }
}

#[test]
fn a_head_without_a_body_and_a_502_are_not_asked_for_again() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for (said, message) in [
        // vLLM sends its head at once.
        (None, "upstream 'default' broke off within its answer"),
        // A load balancer whose server has died at work.
        (Some((502, "<html>Bad Gateway</html>")), "Bad Gateway"),
    ] {
        let before = upstream.seen().len();
        upstream.next(move |call| {
            match said {
                None => call.stream_head(),
                Some((status, body)) => _ = call.whole(status, body),
            }
            Then::Close
        });
        let answer = server.connect().post(&hello_stream());
        assert_eq!((answer.status, answer.error().1.as_str()), (502, message));
        assert_eq!(upstream.seen().len(), before + 1, "{message}");
    }
}

#[test]
fn the_upstreams_word_on_when_to_come_back_is_passed_on() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let body = r#"{"error":{"message":"busy"}}"#;
    upstream.next(move |call| call.whole_with(429, "retry-after: 17\r\n", body));
    assert_eq!(server.connect().post(&hello()).header("retry-after"), Some("17"));
}

// covers: 98, 115
#[test]
fn an_upstream_that_is_not_there_is_a_502_that_asks_to_come_back() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::run(&["serve", "--upstream", &format!("http://{address}/v1")], &[]);
    let warning = server.wait_for("upstream default did not answer");
    assert!(warning.contains("WARN"), "{warning}");
    for request in [hello(), hello_stream()] {
        let answer = server.connect().post(&request);
        assert_eq!((answer.status, answer.header("retry-after")), (502, Some("1")));
        assert_eq!(answer.header("x-should-retry"), Some("true"));
        let (kind, message) = answer.error();
        assert_eq!((kind.as_str(), message.as_str()), ("api_error", "upstream 'default' cannot be reached"));
        assert!(!answer.text().contains(&address.to_string()), "its address is nobody's business");
    }
}

// covers: 78
#[test]
fn an_error_before_the_content_is_an_http_error() {
    // A dead engine answers at once, so the request is tried again before the client is told.
    const TRIES: usize = 3;
    for with_role in [true, false] {
        for request in [hello(), hello_stream()] {
            let upstream = Upstream::start();
            let server = Server::start(&upstream);
            for _ in 0..TRIES {
                upstream.next(move |call| {
                    call.stream_head();
                    if with_role {
                        call.chunk(&delta(json!({"role": "assistant", "content": ""})));
                    }
                    call.piece(&format!("{ENGINE_DEAD}\n\n"));
                    call.done()
                });
            }
            let answer = server.connect().post(&request);
            if with_role && answer.status == 200 {
                // The role chunk has begun the message.
                assert!(request.get("stream").is_some());
                assert_eq!(answer.events().0, Ended::Failed);
                continue;
            }
            let (kind, text) = answer.error();
            assert_eq!((answer.status, kind.as_str()), (529, "overloaded_error"));
            assert_eq!(
                (answer.header("retry-after"), answer.header("x-should-retry")),
                (Some("2"), Some("true"))
            );
            assert!(text.starts_with("EngineCore encountered an issue."), "{text}");
        }
    }
}

#[test]
fn an_error_after_content_is_an_event_and_without_a_stream_an_http_error() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let script = |call: &mut super::upstream::Call| {
        call.stream_head();
        text_chunks("Half an").iter().take(3).for_each(|chunk| call.chunk(chunk));
        call.piece(&format!("{ENGINE_DEAD}\n\n"));
        call.done()
    };
    upstream.next(script);
    upstream.next(script);
    let answer = server.connect().post(&hello_stream());
    let (ended, content) = answer.events();
    assert_eq!((ended, &content[0]["text"]), (Ended::Failed, &json!("Half an")));
    let error = &answer.data("error")[0];
    assert_eq!(error["error"]["type"], "overloaded_error");
    assert_eq!(error["request_id"].as_str(), answer.header("request-id"));
    assert_eq!(server.connect().post(&hello()).status, 529);
}

// covers: 80, 105
#[test]
fn an_answer_without_a_finish_is_an_error() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // The end of the body; then the end of the connection, once between chunks and once within one.
    for end in 0..3 {
        for request in [hello(), hello_stream()] {
            upstream.next(move |call| {
                call.stream_head();
                text_chunks("Half an").iter().take(3).for_each(|chunk| call.chunk(chunk));
                match end {
                    0 => call.end(),
                    1 => Then::Close,
                    _ => {
                        call.write("ff\r\ndata: {\"choi");
                        Then::Close
                    }
                }
            });
            let answer = server.connect().post(&request);
            if request.get("stream").is_some() {
                let (ended, content) = answer.events();
                assert_eq!((ended, &content[0]["text"]), (Ended::Failed, &json!("Half an")), "{end}");
            } else {
                assert_eq!((answer.status, answer.error().0.as_str()), (502, "api_error"), "{end}");
            }
        }
    }
}

#[test]
fn a_finish_without_done_and_done_without_a_finish_are_ends() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.next(|call| {
        call.stream_head();
        text_chunks("Whole.").iter().for_each(|chunk| call.chunk(chunk));
        call.end()
    });
    upstream.next(|call| {
        call.stream_head();
        text_chunks("Whole.").iter().take(2).for_each(|chunk| call.chunk(chunk));
        call.done()
    });
    for _ in 0..2 {
        assert_eq!(server.connect().post(&hello_stream()).whole_events()[0]["text"], "Whole.");
    }
}

#[test]
fn an_invalid_response_of_the_upstream_is_a_502() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let raw = |text: &'static str| {
        upstream.next(move |call| {
            call.write(text);
            Then::Close
        });
    };
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 13\r\n\r\ndata: {nope\n\n",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nnope",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        raw(text);
        let answer = server.connect().post(&hello_stream());
        assert_eq!((answer.status, answer.error().0.as_str()), (502, "api_error"), "{text}: {answer:?}");
        assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    }
}
