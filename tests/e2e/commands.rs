//! Small commands: `health`, `generate`, `version`.

use std::net::TcpListener;

use super::server::{Server, output, output_in};
use super::upstream::Upstream;

#[test]
fn health_asks_the_server_that_is_named() {
    let server = Server::run(&["demo"], &[]);
    let url = format!("http://{}", server.address);
    assert_eq!(output(&["health", &url]), (Some(0), "healthy\n".into(), String::new()));
    assert_eq!(output(&["health", &format!("{url}/v1/")]).0, Some(0));
    assert_eq!(output_in(&["health"], &[("SPARKGAP_URL", &url)]).0, Some(0));
}

#[test]
fn health_fails_where_no_server_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for arguments in [&["health", &url][..], &["health", "--ready", &url]] {
        let (code, text, stderr) = output(arguments);
        assert_eq!((code, text.as_str()), (Some(1), ""));
        assert!(stderr.contains(&format!("no sparkgap answers at {url}")), "{stderr}");
        assert!(stderr.contains("sparkgap health URL"), "it says what to do: {stderr}");
    }
    let (code, _, stderr) = output(&["health", "ftp://127.0.0.1"]);
    assert!(code == Some(1) && !stderr.is_empty(), "{stderr}");
}

#[test]
fn health_fails_where_something_else_answers() {
    // A model server knows no such page.
    let upstream = Upstream::start();
    let (code, _, stderr) = output(&["health", "--ready", &upstream.url()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/ready"), "{stderr}");
}

#[test]
fn generate_prints_what_shells_and_man_read() {
    for (kind, begin) in [
        ("man", ".TH SPARKGAP 1"),
        ("bash", "# Completions"),
        ("zsh", "#compdef sparkgap\n"),
        ("fish", "# Completions"),
    ] {
        let (code, text, stderr) = output(&["generate", kind]);
        assert!(
            code == Some(0) && text.starts_with(begin) && text.contains("doctor"),
            "{kind}: {text}{stderr}"
        );
    }
    let (code, text, stderr) = output(&["generate", "tcsh"]);
    assert!(code == Some(1) && text.is_empty() && stderr.contains("fish"), "{stderr}");
}

#[test]
fn version_begins_with_the_number() {
    for word in ["version", "--version", "-V"] {
        let (code, text, _) = output(&[word]);
        // A release names its commit behind the number, a debug build does not.
        let is_plain = text == format!("sparkgap {}\n", env!("CARGO_PKG_VERSION"));
        let has_commit =
            text.starts_with(&format!("sparkgap {} (", env!("CARGO_PKG_VERSION"))) && text.ends_with(")\n");
        assert!(code == Some(0) && (is_plain || has_commit), "{text}");
    }
}

#[test]
fn listen_takes_a_port_of_all_addresses() {
    // It binds all addresses, and serves none of them without keys.
    for arguments in [&["serve", "--upstream", "demo", "--listen", "0"][..], &["demo", "--listen", "0"]] {
        let (code, _, stderr) = output(arguments);
        assert!(code == Some(78) && stderr.contains("can be reached from other machines"), "{stderr}");
        assert!(
            stderr.contains("SPARKGAP_CLIENT_KEYS"),
            "it names what works for this command, too: {stderr}"
        );
    }
    for listen in ["4000x", "65536", ":", ""] {
        let (code, _, stderr) = output(&["demo", "--listen", listen]);
        assert!(code == Some(1) && stderr.contains("PORT or ADDRESS:PORT"), "{listen}: {stderr}");
    }
}

#[test]
fn listen_is_ignored_under_a_socket_unit_with_a_word() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let arguments = ["serve", "--upstream", "demo", "--listen", "127.0.0.1:1"];
    let server = Server::run_activated(&arguments, socket.into());
    assert_eq!(server.address, address);
    assert!(server.log().contains("--listen 127.0.0.1:1 is ignored"), "{}", server.log());
}
