//! `sparkgap bench`, against a scripted upstream.

use serde_json::Value;

use super::server::{Server, output, output_in};
use super::upstream::Upstream;

#[test]
fn both_ways_are_measured_side_by_side() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let (base, direct) = (format!("http://{}", server.address), upstream.url());
    let arguments =
        ["bench", "--base-url", &base, "--upstream", &direct, "--rounds", "3", "--sizes", "100,1000,8000"];
    let (code, text, stderr) = output(&[&arguments[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
    assert_eq!(code, Some(0));
    // The window has no room for the largest prompt.
    let rows = report["rows"].as_array().unwrap();
    let kinds: Vec<&str> = rows.iter().map(|row| row["cache"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["cold", "warm", "cold", "warm"]);
    for row in rows {
        assert_eq!(row["model"], "qwen3");
        let ways: Vec<&str> =
            row["times"].as_array().unwrap().iter().map(|way| way["way"].as_str().unwrap()).collect();
        assert_eq!(ways, ["sparkgap", "direct"]);
        assert!(row["times"][0]["first_ms"]["min"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(stderr.contains("measuring qwen3, 1000 tokens, warm"), "{stderr}");
    // Each line has one question each way to begin with, then three rounds. Both ways send the upstream the same body.
    let bodies: Vec<Value> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies.len(), 4 * 2 * 4);
    assert_eq!(bodies[8], bodies[9]);
    assert!(bodies[8..16].iter().all(|body| body == &bodies[8]), "warm questions differ");
    assert_ne!(bodies[0], bodies[1]);
}

#[test]
fn a_pool_is_measured_beside_each_of_its_boxes() {
    let boxes = [(); 2].map(|()| Upstream::start());
    let [one, two] = [0, 1].map(|at: usize| boxes[at].url());
    let server = Server::run(&["serve", "--upstream", &one, "--upstream", &two], &[]);
    server.wait_for("upstream default: ");
    server.wait_for("upstream upstream2: ");
    let base = format!("http://{}", server.address);
    let arguments = ["bench", "--json", "--base-url", &base, "--rounds", "2", "--sizes", "100"];
    let (code, text, stderr) = output(&[&arguments[..], &["--upstream", &one, "--upstream", &two]].concat());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
    assert_eq!(code, Some(0), "{stderr}");
    let way = |row: &Value| format!("{} {}", row["model"], row["times"][0]["way"]).replace('"', "");
    let ways: Vec<String> = report["rows"].as_array().unwrap().iter().map(way).collect();
    let expected = ["qwen3 sparkgap", "qwen3 on default direct", "qwen3 on upstream2 direct"];
    assert_eq!(ways, expected.map(|way| [way, way]).concat());
    // Each box gets its own line's questions: two lines of one question to begin with and two rounds.
    assert!(boxes.iter().all(|one| one.seen().len() >= 6));
}

#[test]
fn the_table_is_markdown() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let base = format!("http://{}", server.address);
    let (code, text, _) = output(&["bench", "--base-url", &base, "--rounds", "1", "--sizes", "100"]);
    assert_eq!(code, Some(0));
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| qwen3 |")).collect();
    assert_eq!(rows.len(), 2, "{text}");
    // The kind of the upstream is not known.
    assert!(
        rows[0].contains("| cold |") && rows[1].contains("| warm |") && rows[0].contains("| - |"),
        "{text}"
    );
}

#[test]
fn the_address_of_sparkgap_may_come_from_the_environment() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let address = server.address.to_string();
    let arguments = ["bench", "--rounds", "1", "--sizes", "100"];
    let (code, text, stderr) = output_in(&arguments, &[("SPARKGAP_URL", &address)]);
    assert!(code == Some(0) && text.contains("| qwen3 |"), "{text}{stderr}");
    // The command line takes precedence over the environment.
    let arguments = [&arguments[..], &["--base-url", "http://127.0.0.1:1"]].concat();
    let (code, _, stderr) = output_in(&arguments, &[("SPARKGAP_URL", &address)]);
    assert!(code == Some(1) && stderr.contains("no sparkgap answers at http://127.0.0.1:1 "), "{stderr}");
}

#[test]
fn the_real_api_is_asked_only_by_name_and_with_a_key() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let base = format!("http://{}", server.address);
    let arguments = [
        "bench",
        "--base-url",
        &base,
        "--anthropic",
        "claude-sonnet-4",
        "--anthropic-url",
        &base,
        "--rounds",
        "1",
        "--sizes",
        "100",
    ];
    let (code, _, stderr) = output(&arguments);
    assert!(code == Some(1) && stderr.contains("ANTHROPIC_API_KEY"), "{stderr}");
    assert_eq!(upstream.seen().len(), 0);
    let (code, text, stderr) = output_in(&arguments, &[("ANTHROPIC_API_KEY", "sk-ant")]);
    assert!(code == Some(0) && text.contains("| claude-sonnet-4 (Anthropic) |"), "{text}{stderr}");
}

#[test]
fn mistakes_are_reported() {
    let (code, _, stderr) = output(&["bench", "--base-url", "http://127.0.0.1:1"]);
    assert!(code == Some(1) && stderr.contains("no sparkgap answers at http://127.0.0.1:1 "), "{stderr}");
    for arguments in [["bench", "--sizes", "many"], ["bench", "--rounds", "0"]] {
        let (code, _, stderr) = output(&arguments);
        assert!(code == Some(1) && stderr.contains(arguments[1]), "{stderr}");
    }
}
