//! The rules for requests of web pages, as tables.

use super::*;

fn request(authority: Option<&str>, headers: &[(&str, &str)]) -> Request {
    Request {
        method: "POST".into(),
        path: "/v1/messages".into(),
        query: None,
        authority: authority.map(str::to_string),
        headers: headers.iter().copied().collect(),
    }
}

fn host_is_ours(headers: &[(&str, &str)], authority: Option<&str>, listed: &[&str], local: &str) -> bool {
    let listed: Vec<HostName> = listed.iter().map(|name| name.parse().unwrap()).collect();
    let checked = check_host(&request(authority, headers), &listed, || local.parse().ok());
    if let Err(error) = &checked {
        assert_eq!((error.status(), error.kind.name(), error.retry), (403, "permission_error", Retry::Never));
    }
    checked.is_ok()
}

#[test]
fn hosts_of_this_machine_are_served() {
    for host in [
        "localhost",
        "localhost:4000",
        "LocalHost:1",
        "localhost.",
        "localhost.:4000",
        "localhost:",
        "spark.localhost:4000",
        "127.0.0.1",
        "127.0.0.1:4000",
        "127.1.2.3:80",
        "[::1]",
        "[::1]:4000",
        "[0:0:0:0:0:0:0:1]:4000",
        "[::ffff:127.0.0.1]:4000",
        "[::ffff:7f00:1]:4000",
        // A request without a host does not come from a browser.
        "",
    ] {
        assert!(host_is_ours(&[("host", host)], None, &[], "127.0.0.1"), "{host}");
    }
    assert!(host_is_ours(&[], None, &[], "127.0.0.1"));
    assert!(host_is_ours(&[("host", "localhost")], Some("127.0.0.1:4000"), &[], "127.0.0.1"));
}

#[test]
fn other_hosts_are_not() {
    for host in [
        "evil.example",
        "rebound.evil.example:4000",
        "x",
        "box:4000",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1.nip.io",
        "127.0.0.1.evil.example:4000",
        "localhostx",
        "localhost..",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost evil.example",
        "localhost,evil.example",
        "localhost:4000:4000",
        "localhost:x",
        "localhost:99999",
        "localhost:+80",
        "http://localhost",
        "localhost/evil",
        "127.0.0.1%lo",
        "0.0.0.0:4000",
        "[::]:4000",
        "0:4000",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1x",
        "8.8.8.8",
        "192.168.1.7:4000",
        "[::ffff:8.8.8.8]",
        "[2001:db8::1]",
        "[::1",
        "::1",
        "[127.0.0.1]",
        "[::1]x",
        "[localhost]",
        ":4000",
        ".",
        "\u{fc}",
        "l\u{f6}calhost",
    ] {
        assert!(!host_is_ours(&[("host", host)], None, &[], "127.0.0.1"), "{host}");
        assert!(!host_is_ours(&[("host", "localhost")], Some(host), &[], "127.0.0.1"), "{host}");
        assert!(!host_is_ours(&[("host", host)], Some("localhost"), &[], "127.0.0.1"), "{host}");
    }
}

#[test]
fn the_address_that_was_reached_and_listed_names_are_served() {
    for (host, listed, local, expected) in [
        ("192.168.1.7:4000", &[][..], "192.168.1.7", true),
        ("192.168.1.7:8080", &[], "::ffff:192.168.1.7", true),
        ("[::ffff:192.168.1.7]", &[], "192.168.1.7", true),
        ("192.168.1.8:4000", &[], "192.168.1.7", false),
        ("[2001:db8::1]:4000", &[], "2001:db8::1", true),
        ("[fe80::1]:4000", &[], "fe80::1", true),
        ("[fe80::1%25eth0]:4000", &[], "fe80::1", true),
        ("box:4000", &["box"], "192.168.1.7", true),
        ("BOX.", &["box"], "192.168.1.7", true),
        ("box", &["Box."], "192.168.1.7", true),
        ("box.lan", &["box"], "192.168.1.7", false),
        ("a.box", &["box"], "192.168.1.7", false),
        ("192.168.1.8", &["192.168.1.8"], "172.17.0.2", true),
        ("[2001:db8::2]:4000", &["2001:db8::2"], "172.17.0.2", true),
        ("[2001:db8::2]:4000", &["[2001:db8::2]"], "172.17.0.2", true),
        ("evil.example", &["box", "192.168.1.8"], "192.168.1.7", false),
    ] {
        assert_eq!(
            host_is_ours(&[("host", host)], None, listed, local),
            expected,
            "{host} {listed:?} {local}"
        );
    }
    for text in ["", "*", "*.lan", "box:4000", "http://box", "box/", "[::1", "a b", "192.168.1.7:4000"] {
        assert!(text.parse::<HostName>().is_err(), "{text:?}");
    }
}

#[test]
fn an_error_names_the_host_without_its_port() {
    for (host, name) in [
        ("box:4000", "box"),
        ("box", "box"),
        ("[2001:db8::1]:4000", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
    ] {
        let error = check_host(&request(None, &[("host", host)]), &[], || None).unwrap_err();
        assert!(error.message.contains(&format!("--allow-host {name} or")), "{}", error.message);
    }
    let long = "x".repeat(10_000);
    let error = check_host(&request(None, &[("host", &long)]), &[], || None).unwrap_err();
    assert!(error.message.len() < 500);
}

/// `Some(true)`: admitted as a listed origin; `Some(false)`: admitted; `None`: refused.
fn page(headers: &[(&str, &str)]) -> Option<bool> {
    let listed =
        ["https://chat.example", "http://localhost:3000/", "app://obsidian.md", "http://Plain.example:80"];
    let listed: Vec<Origin> = listed.iter().map(|text| text.parse().unwrap()).collect();
    match check_origin(&request(None, headers), &listed, false) {
        Ok(origin) => Some(origin.is_some()),
        Err(error) => {
            assert_eq!((error.status(), error.kind.name()), (403, "permission_error"));
            None
        }
    }
}

#[test]
fn origins() {
    for (host, origin, expected) in [
        ("127.0.0.1:4000", "http://127.0.0.1:4000", Some(false)),
        ("localhost:4000", "http://LOCALHOST:4000", Some(false)),
        ("[::1]:4000", "http://[::1]:4000", Some(false)),
        ("box", "https://box", Some(false)),
        ("box:443", "https://box", Some(false)),
        ("box", "http://box:80", Some(false)),
        ("localhost:4000", "https://chat.example", Some(true)),
        ("localhost:4000", "http://localhost:3000", Some(true)),
        ("localhost:4000", "app://obsidian.md", Some(true)),
        ("localhost:4000", "http://plain.example", Some(true)),
        ("localhost:4000", "https://evil.example", None),
        ("localhost:4000", "http://localhost", None),
        ("localhost:4000", "http://localhost:4001", None),
        ("localhost:4000", "http://127.0.0.1:4000", None),
        ("localhost:4000", "null", None),
        ("localhost:4000", "", None),
        ("localhost:4000", "file://", None),
        ("localhost:4000", "localhost:4000", None),
        ("localhost:4000", "chrome-extension://localhost:4000", None),
        ("localhost:4000", "http://localhost:4000@evil.example", None),
        ("localhost:4000", "http://localhost:4000, https://evil.example", None),
        ("localhost:4000", "https://chat.example.evil.example", None),
        ("localhost:4000", "http://chat.example", None),
        ("localhost:4000", "https://chat.example:8443", None),
        ("localhost:4000", "\u{fc}", None),
        ("", "http://localhost:4000", None),
    ] {
        assert_eq!(page(&[("host", host), ("origin", origin)]), expected, "{host} {origin}");
    }
    assert_eq!(
        page(&[("origin", "http://localhost:4000")]),
        None,
        "an origin is sparkgap's own only if a host says so"
    );
    for second in ["https://chat.example", "https://evil.example"] {
        assert_eq!(page(&[("origin", "https://chat.example"), ("origin", second)]), None, "{second}");
    }
}

#[test]
fn what_a_browser_says_of_the_site_counts_without_an_origin_too() {
    for (site, expected) in [
        ("none", Some(false)),
        ("same-origin", Some(false)),
        ("Same-Origin", Some(false)),
        ("same-site", None),
        ("cross-site", None),
        ("CROSS-SITE", None),
        ("", None),
        ("new-word", None),
        ("none, cross-site", None),
    ] {
        assert_eq!(page(&[("host", "localhost"), ("sec-fetch-site", site)]), expected, "{site}");
    }
    assert_eq!(page(&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]), None);
    assert_eq!(page(&[("sec-fetch-mode", "cors")]), Some(false), "Node says no more than this");
    let listed = ("origin", "https://chat.example");
    assert_eq!(page(&[listed, ("sec-fetch-site", "cross-site")]), Some(true));
    let own = [("host", "localhost"), ("origin", "http://localhost"), ("sec-fetch-site", "cross-site")];
    assert_eq!(page(&own), None);
}

#[test]
fn a_link_on_another_site_may_lead_to_the_page_and_nothing_else_may() {
    let asks = |method: &str, is_page: bool, headers: &[(&str, &str)]| {
        let headers = [&[("host", "localhost"), ("sec-fetch-site", "cross-site")][..], headers].concat();
        let request = Request { method: method.into(), ..request(None, &headers) };
        check_origin(&request, &[], is_page).is_ok()
    };
    let (mode, dest) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
    assert!(asks("GET", true, &[mode, dest]) && asks("HEAD", true, &[mode, dest]));
    for (method, is_page, headers) in [
        ("GET", false, &[mode, dest][..]),
        ("POST", true, &[mode, dest]),
        ("GET", true, &[mode]),
        ("GET", true, &[dest]),
        ("GET", true, &[mode, ("sec-fetch-dest", "iframe")]),
        ("GET", true, &[mode, ("sec-fetch-dest", "object")]),
        ("GET", true, &[("sec-fetch-mode", "no-cors"), dest]),
        ("GET", true, &[mode, mode, dest]),
        ("GET", true, &[mode, dest, ("origin", "https://evil.example")]),
    ] {
        assert!(!asks(method, is_page, headers), "{method} {headers:?}");
    }
}

#[test]
fn origins_of_the_command_line() {
    for (text, expected) in [
        ("https://Chat.Example", Some("https://chat.example")),
        ("https://chat.example/", Some("https://chat.example")),
        ("https://chat.example:443", Some("https://chat.example")),
        ("http://localhost:3000", Some("http://localhost:3000")),
        ("http://[::1]:80", Some("http://[::1]")),
        ("chrome-extension://abcdef", Some("chrome-extension://abcdef")),
        ("tauri://localhost", Some("tauri://localhost")),
        ("*", None),
        ("null", None),
        ("chat.example", None),
        ("https://", None),
        ("https://*", None),
        ("https://*.example", None),
        ("https://chat.example/app", None),
        ("https://a@chat.example", None),
        ("https://chat example", None),
        ("https://chat.example:x", None),
        ("https://a,https://b", None),
    ] {
        let parsed = text.parse::<Origin>().ok();
        assert_eq!(parsed.as_ref().map(Origin::as_str), expected, "{text}");
    }
}

#[test]
fn types_that_a_form_could_send_are_refused() {
    for (kind, is_taken) in [
        ("application/json", true),
        ("application/json; charset=utf-8", true),
        ("Application/JSON", true),
        ("application/vnd.api+json", true),
        ("application/octet-stream", true),
        ("", true),
        ("text/plainer", true),
        ("text/plain", false),
        ("TEXT/Plain;charset=UTF-8", false),
        ("text/plain ; application/json", false),
        (" text/plain", false),
        ("text/plain, application/json", false),
        ("application/x-www-form-urlencoded", false),
        ("multipart/form-data; boundary=x", false),
        ("multipart/mixed", false),
    ] {
        let checked = check_content_type(&request(None, &[("content-type", kind)]));
        assert_eq!(checked.is_ok(), is_taken, "{kind}");
        if let Err(error) = checked {
            assert_eq!((error.status(), error.kind.name()), (415, "invalid_request_error"));
        }
    }
    assert!(check_content_type(&request(None, &[])).is_ok());
    let twice = [("content-type", "application/json"), ("content-type", "text/plain")];
    assert!(check_content_type(&request(None, &twice)).is_err());
}
