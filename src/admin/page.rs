//! The page that a browser gets at `/`: the lines that make a client use this server.
//!
//! It needs no key, so it names no model and shows no key. It has no style, script or link to another host, and its headers
//! forbid them.

use std::fmt::Write as _;

use crate::http::Request;
use crate::shell::in_quotes;

/// The headers of the page.
pub const PAGE_HEADERS: [(&str, &str); 5] = [
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

/// True if the client is a browser that shows a page.
pub fn is_wanted_by(request: &Request) -> bool {
    let types = request.header("accept").unwrap_or_default();
    types.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim() == "text/html")
}

/// The lines that start Claude Code against this address, each with the name of its shell. Where a key is needed, `KEY` stands
/// in its place.
pub(super) fn claude_lines(address: &str, needs_key: bool) -> [(&'static str, String); 4] {
    let settings = format!(
        "{} -o sparkgap.json && claude --settings sparkgap.json",
        get(address, needs_key, "/env.json")
    );
    [
        ("sh, bash, zsh", eval(address, needs_key, ("/env.sh", "claude"))),
        ("fish", eval(address, needs_key, ("/env.fish", "claude"))),
        ("PowerShell", power_shell(address, needs_key, ("/env.ps1", "claude"))),
        ("a settings file", settings),
    ]
}

fn get(address: &str, needs_key: bool, path: &str) -> String {
    let key = if needs_key { "-H 'x-api-key: KEY' " } else { "" };
    format!("curl -fsS {key}{}", in_quotes(&format!("{address}{path}")))
}

fn eval(address: &str, needs_key: bool, (path, command): (&str, &str)) -> String {
    format!("eval \"$({} || echo false)\" && {command}", get(address, needs_key, path))
}

fn power_shell(address: &str, needs_key: bool, (path, command): (&str, &str)) -> String {
    let headers = if needs_key { " -Headers @{ 'x-api-key' = 'KEY' }" } else { "" };
    let address = address.replace('\'', "''");
    format!(
        "try {{ Invoke-RestMethod '{address}{path}'{headers} | Invoke-Expression; {command} }} catch {{ $_ }}"
    )
}

/// The page for a client that reached us by this address.
pub fn write(address: &str, needs_key: bool) -> String {
    let any_key = if needs_key { "your key" } else { "any text" };
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\"><meta name=\"viewport\" content=\"width=device-width\"><title>sparkgap</title></head><body>\n<h1>sparkgap</h1>\n",
    );
    if needs_key {
        page.push_str("<p>Put your key in the place of KEY.</p>\n");
    }
    let openai = |path| (path, "your-client");
    let claude = claude_lines(address, needs_key);
    section(&mut page, "Claude Code", &claude.each_ref().map(|(name, line)| (*name, line.as_str())));
    section(
        &mut page,
        "Clients of OpenAI's protocol",
        &[
            ("base URL", &format!("{address}/v1")),
            ("API key", any_key),
            ("sh, bash, zsh", &eval(address, needs_key, openai("/env.sh?openai"))),
            ("fish", &eval(address, needs_key, openai("/env.fish?openai"))),
            ("PowerShell", &power_shell(address, needs_key, openai("/env.ps1?openai"))),
        ],
    );
    page.push_str(
        "<p><a href=\"ui\">The live page</a> shows the boxes, the requests and the conversations.</p>\n",
    );
    page.push_str("</body></html>\n");
    page
}

fn section(page: &mut String, title: &str, rows: &[(&str, &str)]) {
    let _ = write!(page, "<h2>{}</h2>\n<dl>\n", escaped(title));
    for (name, line) in rows {
        let _ = writeln!(page, "<dt>{}</dt><dd><pre>{}</pre></dd>", escaped(name), escaped(line));
    }
    page.push_str("</dl>\n");
}

/// A text between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_lines_and_lets_nothing_else_in() {
        let page = write("http://box:4000/a<b>&'c", true);
        for line in [
            "eval \"$(curl -fsS -H 'x-api-key: KEY' 'http://box:4000/a&lt;b&gt;&amp;'\\''c/env.sh' || echo false)\" &amp;&amp; claude",
            "<pre>http://box:4000/a&lt;b&gt;&amp;'c/v1</pre>",
        ] {
            assert!(page.contains(line), "{page}");
        }
        assert!(!page.contains("a<b>") && !page.contains("<script") && !page.contains("<style"), "{page}");
        assert!(!write("http://box", false).contains("KEY"));
    }
}
