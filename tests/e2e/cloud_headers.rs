//! A person's own `ANTHROPIC_CUSTOM_HEADERS` stay beside the line with sparkgap's key, in every form of the environment.

use std::fs;

use serde_json::Value;

use super::cloud::start_with;
use super::evaluation::{run, shells};
use super::messages_api::MessagesApi;
use super::server::{Server, output_in};
use super::upstream::Upstream;

const NAME: &str = "ANTHROPIC_CUSTOM_HEADERS";
const OURS: &str = "x-sparkgap-key: sk-anna-0123456789";

fn server(name: &str, api: &MessagesApi, boxed: &Upstream) -> Server {
    let keys = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("headers-{name}.keys"));
    fs::write(&keys, "sk-anna-0123456789 anna\n").unwrap();
    let arguments = ["--api-key-file", keys.to_str().unwrap()];
    start_with(&format!("headers-{name}"), &api.url(), boxed, "", "", &arguments)
}

/// The values that a shell may have, and the headers that stay.
const OWN: [(&str, &str); 3] = [
    ("", ""),
    ("x-project: it's a", "\nx-project: it's a"),
    ("X-Sparkgap-Key : old\nx-project: a\n\nx-b: \"$c\"", "\nx-project: a\nx-b: \"$c\""),
];

#[test]
fn scripts_keep_the_headers_of_the_shell() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = server("scripts", &api, &boxed);
    let url = format!("http://{}", server.address);
    let get = |path: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nanthropic-version: x\r\n{OURS}\r\n\r\n",
            server.address
        );
        server.connect().ask(request.as_bytes()).text().to_owned()
    };
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("headers-scripts");
    fs::create_dir_all(&folder).unwrap();
    for (number, (own, kept)) in OWN.iter().enumerate() {
        let expected = format!("{OURS}{kept}");
        for shell in shells() {
            let is_fish = shell.ends_with("fish");
            let set = folder.join(format!("own-{number}"));
            fs::write(&set, own).unwrap();
            let before = match is_fish {
                true => format!("set -gx {NAME} (cat {} | string collect);", set.display()),
                false => format!("export {NAME}=\"$(cat {})\";", set.display()),
            };
            let script = folder.join(format!("env-{number}"));
            let eval = format!("{before} eval \"$(cat {})\" && printf %s \"${NAME}\"", script.display());
            let paths = if is_fish { &["/env.fish", "/env.sh"][..] } else { &["/env.sh"] };
            for path in paths {
                fs::write(&script, get(path)).unwrap();
                assert_eq!(run(&shell, &eval), (expected.clone(), Some(0)), "{shell} {path}: {own:?}");
            }
            // The command's own lines.
            let environment: Vec<(&str, &str)> = vec![(NAME, own), ("HOME", "/nowhere")];
            let arguments = ["env", "--remote", &url, "--api-key", "sk-anna-0123456789"];
            let (code, out, said) = output_in(&arguments, &environment);
            assert_eq!(code, Some(0), "{said}");
            fs::write(&script, out).unwrap();
            assert_eq!(run(&shell, &eval), (expected.clone(), Some(0)), "{shell}: {own:?}");
            for form in ["--json", "--settings"] {
                let (_, out, _) = output_in(&[&arguments[..], &[form]].concat(), &environment);
                let told: Value = serde_json::from_str(&out).unwrap();
                let told = told.get("env").unwrap_or(&told);
                assert_eq!(told[NAME], expected.as_str(), "{form}");
            }
        }
    }
    // A shell with strict settings, without the variable, and an `eval` that joins the lines.
    let script = folder.join("env.sh");
    fs::write(&script, get("/env.sh")).unwrap();
    let strict = format!("unset {NAME}; set -eu; eval $(cat {}); printf %s \"${NAME}\"", script.display());
    for shell in shells().iter().filter(|shell| shell.ends_with("/sh") || shell.ends_with("bash")) {
        assert_eq!(run(shell, &strict), (OURS.to_owned(), Some(0)), "{shell}");
    }
    let script = get("/env.ps1");
    let line = script.lines().find(|line| line.contains(NAME)).unwrap();
    assert!(line.contains(&format!("(@('{OURS}') + @(")), "{line}");
}

#[test]
fn claude_code_keeps_the_headers_of_its_settings() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = server("claude", &api, &boxed);
    let url = format!("http://{}", server.address);
    let home = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("headers-home");
    let (bin, settings) = (home.join("bin"), home.join(".claude"));
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&settings).unwrap();
    let program = bin.join("claude");
    fs::write(&program, format!("#!/bin/sh\nprintf '%s\\n--\\n%s\\n' \"${NAME}\" \"$2\"\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let run = |arguments: &[&str]| {
        let environment = [
            (NAME, "x-project: shell"),
            ("HOME", home.to_str().unwrap()),
            ("PATH", path.as_str()),
            ("SPARKGAP_URL", url.as_str()),
            ("SPARKGAP_API_KEY", "sk-anna-0123456789"),
        ];
        let (code, out, said) = output_in(arguments, &environment);
        assert_eq!(code, Some(0), "{out}{said}");
        out
    };
    let out = run(&["claude"]);
    assert!(out.starts_with(&format!("{OURS}\nx-project: shell\n--\n")), "{out}");
    assert!(!out.split_once("--\n").unwrap().1.contains("sk-anna"), "the key is in no argument: {out}");
    // A settings file beats the environment, so the person's lines there are the ones that count.
    let file = settings.join("settings.json");
    fs::write(&file, format!("{{\"env\":{{\"{NAME}\":\"x-project: file\"}}}}")).unwrap();
    let out = run(&["claude"]);
    let told: Value = serde_json::from_str(out.split_once("--\n").unwrap().1).unwrap();
    assert_eq!(told["env"][NAME], format!("{OURS}\nx-project: file"));
    run(&["claude", "--settings"]);
    let told: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(told["env"][NAME], format!("{OURS}\nx-project: file"));
    run(&["claude", "--settings", "--undo"]);
    let told: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(told["env"][NAME], "x-project: file");
}
