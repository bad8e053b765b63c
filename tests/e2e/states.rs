//! The effects of a change of an upstream's state: the line in the log, the hook, and the magic packet for one that sleeps.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;

use serde_json::json;

use super::HANG;
use super::client::{hello, hello_stream};
use super::physics::engine::Profile;
use super::physics::server::{MODEL, ModelServer};
use super::server::{Server, hooks_file};
use super::upstream::Upstream;

fn serve(name: &str, lua: &str) -> Server {
    let server = Server::run(&["serve", "--hooks", &hooks_file(&format!("states-{name}"), lua)], &[]);
    server.wait_for("upstream spark: ");
    server
}

#[test]
fn each_change_is_one_line_and_one_call_of_the_hook() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{
            upstreams = {{ spark = {{ url = "{}", max_in_flight = 4 }} }},
            on_upstream_state = function(name, state, why)
                log.info("told: " .. name .. " is " .. state .. ", " .. why)
            end,
        }}"#,
        upstream.url()
    );
    let server = serve("hook", &lua);
    assert_eq!(server.connect().post(&hello()).status, 200);
    let busy = |call: &mut super::upstream::Call| {
        call.whole_with(429, "retry-after: 0\r\n", r#"{"error":{"message":"busy now"}}"#)
    };
    for _ in 0..2 {
        upstream.next(busy);
        assert_eq!(server.connect().post(&hello()).status, 429);
    }
    assert_eq!(server.connect().post(&hello()).status, 200);
    // Of three conversations: one that fails again and again says nothing against its upstream.
    for conversation in 0..3 {
        upstream.next_answer(500, r#"{"error":{"message":"it fell over"}}"#);
        let mut body = hello();
        body["system"] = json!(format!("conversation {conversation}"));
        assert_eq!(server.connect().post(&body).status, 500);
    }
    let told = server.wait_for("told: spark is out, ");
    assert!(told.contains("it fell over"), "{told}");
    let log = server.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    for (text, count) in [
        ("upstream spark: full (it was well for ", 1),
        (" s): 429 rate_limit_error: busy now", 1),
        ("upstream spark: well (it was full for ", 1),
        ("upstream spark: out (it was well for ", 1),
        ("told: spark is full, ", 1),
        ("told: spark is well, it answered a request", 1),
        ("told: ", 3),
    ] {
        assert_eq!(lines(text), count, "{text}: {log}");
    }
}

#[test]
fn a_hook_that_fails_or_never_ends_holds_no_request() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{
            policy = "closed",
            upstreams = {{ spark = {{ url = "{}", max_in_flight = 4 }} }},
            on_upstream_state = function(name, state)
                if state == "full" then error("no phone") end
                while true do end
            end,
        }}"#,
        upstream.url()
    );
    let server = serve("fails", &lua);
    upstream.next(|call| call.whole_with(429, "retry-after: 0\r\n", "{}"));
    assert_eq!(server.connect().post(&hello()).status, 429);
    assert_eq!(server.connect().post(&hello()).status, 200);
    server.wait_for("hook on_upstream_state of ");
    server.wait_until(|health| health["hook_failures"] == 2);
}

/// The socket that stands for the network card of a box that has just been switched off, the box, and a server that can
/// wake it.
fn asleep(name: &str) -> (UdpSocket, ModelServer, Server) {
    let card = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    card.set_read_timeout(Some(HANG)).unwrap();
    let spark = ModelServer::start(Profile::spark(), 500.0);
    let lua = format!(
        r#"return {{ upstreams = {{ spark = {{ url = "{}", wake = "aa:bb:cc:dd:ee:ff@{}" }} }} }}"#,
        spark.url(),
        card.local_addr().unwrap()
    );
    let server = serve(name, &lua);
    spark.kill();
    (card, spark, server)
}

#[test]
fn a_sleeping_machine_is_woken_and_its_request_waits_for_it() {
    let (card, spark, server) = asleep("wake");
    let mut client = server.connect();
    let mut body = hello_stream();
    body["model"] = json!(MODEL);
    let waiting = thread::spawn(move || client.post(&body));
    let mut packet = [0; 200];
    let (size, _) = card.recv_from(&mut packet).unwrap();
    assert_eq!(
        (size, &packet[..12]),
        (102, [[0xff; 6], [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]].as_flattened())
    );
    server.wait_for(
        "upstream spark: a request wants it while it is out; sent a magic packet to aa:bb:cc:dd:ee:ff",
    );
    spark.restart();
    let answer = waiting.join().unwrap();
    assert!(answer.status == 200 && answer.text().contains("message_stop"), "{}", answer.text());
    server.wait_for("upstream spark: well (it was out for ");
}

#[test]
fn a_client_that_does_not_stream_is_told_to_come_back_while_the_machine_wakes() {
    let (card, _spark, server) = asleep("wake-whole");
    let mut body = hello();
    body["model"] = json!(MODEL);
    for _ in 0..2 {
        let answer = server.connect().post(&body);
        assert_eq!(answer.status, 529, "{}", answer.text());
        assert!(answer.header("retry-after").is_some(), "{}", answer.text());
    }
    assert_eq!(card.recv_from(&mut [0; 200]).unwrap().0, 102);
}
